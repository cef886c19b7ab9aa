"""Checks of packages that keep copies of models' values in their own tables, in plaintext."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning
from django.db.models import Model

from django_asherah.fields import EncryptedFieldMixin


@register(Tags.security)
def check_copies(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report encrypted fields whose values django-reversion or django-auditlog stores in plaintext."""
    messages = [*_check_versions(), *_check_log()]
    return [message for message in messages if app_configs is None or message.obj._meta.app_config in app_configs]


def _check_versions() -> Iterator[CheckMessage]:
    if not apps.is_installed("reversion"):
        return
    from reversion import revisions

    for model in revisions.get_registered_models():
        for field in _find_encrypted(model._meta.concrete_model._meta.local_fields):
            if field.name in _get_version_fields(revisions, model, field.name):
                yield CheckWarning(
                    f"django-reversion writes the encrypted field {field.full_name} into its versions in plaintext.",
                    hint="Register the model with 'exclude', or use django-simple-history: it keeps encrypted copies.",
                    obj=model,
                    id="asherah.W116",
                )


def _get_version_fields(revisions: Any, model: type[Model], default: str) -> Any:
    try:
        return revisions._get_options(model).fields
    except AttributeError:  # It is not public, so another release may move it: then warn too often.
        return (default,)


def _check_log() -> Iterator[CheckMessage]:
    if not apps.is_installed("auditlog"):
        return
    from auditlog.registry import auditlog

    for model in auditlog.get_models():
        written = _get_log_fields(auditlog, model)
        for field in _find_encrypted(model._meta.fields):
            if field.name in written:
                yield CheckWarning(
                    f"django-auditlog writes the encrypted field {field.full_name} into its log in plaintext.",
                    hint="Register the model with 'exclude_fields'. The documentation says which masks are enough.",
                    obj=model,
                    id="asherah.W117",
                )


def _get_log_fields(auditlog: Any, model: type[Model]) -> set[str]:
    """Return the names of the fields that it writes as they are, or with the mask that hides half of a value."""
    options, copies = auditlog.get_model_fields(model), auditlog.get_serialize_options(model)
    everything = {field.name for field in model._meta.fields}
    tracked = (set(options["include_fields"]) or everything) - set(options["exclude_fields"])
    has_mask = options.get("mask_callable") or getattr(settings, "AUDITLOG_MASK_CALLABLE", None)
    written = tracked - set(options["mask_fields"] if has_mask else ())
    if copies["serialize_data"]:  # Its mask changes only strings, not documents and numbers.
        default = tracked if copies["serialize_auditlog_fields_only"] else everything
        written |= set(copies["serialize_kwargs"].get("fields", default))
    return written


def _find_encrypted(fields: Any) -> Iterator[EncryptedFieldMixin]:
    return (field for field in fields if isinstance(field, EncryptedFieldMixin))
