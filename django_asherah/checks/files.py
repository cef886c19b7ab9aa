"""A check of admin pages that show encrypted files without a URL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db.models import FileField
from django.forms.models import ALL_FIELDS, ModelFormOptions

from django_asherah.checks.admin import model_admins
from django_asherah.storage import EncryptedStorage


@register(Tags.admin)
def check_files(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report model admins, and their inlines, that show encrypted files whose storage has no ``base_url``."""
    return [
        message
        for model_admin in model_admins(app_configs)
        for shown in (model_admin, *model_admin.inlines)
        for message in _check(shown)
    ]


def _check(shown: Any) -> Iterator[CheckMessage]:
    for field in shown.model._meta.fields:
        is_ours = isinstance(field, FileField) and isinstance(field.storage, EncryptedStorage)
        if is_ours and field.storage.base_url is None and _shows(shown, field):
            yield Error(
                f"It shows {field.model._meta.label}.{field.name}, whose storage has no base_url: lists and pages "
                "to view would fail, and forms have no link to the file.",
                hint="Give EncryptedStorage the base_url of an EncryptedFileView, or leave the field out.",
                obj=shown if isinstance(shown, type) else type(shown),
                id="asherah.E130",
            )


def _shows(shown: Any, field: Any) -> bool:
    from django.contrib.admin.utils import flatten, flatten_fieldsets

    name = field.name
    if name in getattr(shown, "list_display", ()) or name in shown.readonly_fields:
        return True
    if shown.fieldsets or shown.fields:
        return name in (flatten_fieldsets(shown.fieldsets) if shown.fieldsets else flatten(shown.fields))
    # What it doesn't say itself, the admin asks its form for.
    of_form: Any = ModelFormOptions(getattr(shown.form, "Meta", None))
    exclude = of_form.exclude if shown.exclude is None else shown.exclude
    is_in_form = of_form.fields in (None, ALL_FIELDS) or name in of_form.fields
    return field.editable and is_in_form and name not in (exclude or ())
