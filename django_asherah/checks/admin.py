"""Checks of admin options that would make the database look into encrypted fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Tags, register
from django.core.checks import Warning as CheckWarning

from django_asherah.checks.models import refuse
from django_asherah.fields.paths import find_encrypted


@register(Tags.admin)
def check_admin(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report model admins that search, filter or order by encrypted fields, or let people do so."""
    return [message for model_admin in model_admins(app_configs) for message in _check_admin(model_admin)]


def model_admins(app_configs: Sequence[AppConfig] | None) -> Iterator[Any]:
    """Yield the model admins of all sites; if apps are given, those of their models. None if there is no admin."""
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.sites import all_sites

    for site in all_sites:
        for model, model_admin in site._registry.items():
            if app_configs is None or apps.get_app_config(model._meta.app_label) in app_configs:
                yield model_admin


def _check_admin(model_admin: Any) -> Iterator[CheckMessage]:
    model, owner = model_admin.model, type(model_admin)
    yield from refuse(model, owner, "E111", "'search_fields'", _search_paths(model_admin.search_fields))
    yield from refuse(model, owner, "E112", "'list_filter'", model_admin.list_filter)
    yield from refuse(model, owner, "E113", "'ordering'", model_admin.ordering or ())
    for inline in model_admin.inlines:
        yield from refuse(inline.model, inline, "E113", "'ordering'", inline.ordering or ())
    yield from refuse(model, owner, "E114", "'date_hierarchy'", [model_admin.date_hierarchy or ""])
    yield from refuse(model, owner, "E115", "'sortable_by'", model_admin.sortable_by or ())
    for name in model_admin.list_display:
        display = _display(model_admin, name)
        order = getattr(display, "admin_order_field", None)
        yield from refuse(
            model, owner, "E115", f"the 'ordering' of {name!r} in 'list_display'", [order] if order else []
        )
    yield from _check_headings(model_admin)


def _check_headings(model_admin: Any) -> Iterator[CheckMessage]:
    """Warn about clickable headings that would sort by an encrypted field."""
    is_default = getattr(type(model_admin).get_sortable_by, "__module__", "").startswith("django.contrib.admin")
    if model_admin.sortable_by is not None or not is_default:
        return
    for name in model_admin.list_display:
        field = find_encrypted(model_admin.model, name) if isinstance(name, str) else None
        if field is not None:
            yield CheckWarning(
                f"'list_display' names the encrypted field {field.full_name}, and clicking its heading sorts by it, "
                "which fails.",
                hint="List the columns to sort by in 'sortable_by', without this one.",
                obj=type(model_admin),
                id="asherah.W115",
            )


def _display(model_admin: Any, name: Any) -> Any:
    if callable(name):
        return name
    return getattr(model_admin, name, None) or getattr(model_admin.model, name, None)


def _search_paths(names: Iterable[str]) -> list[str]:
    # The first character may choose the lookup.
    return [name.lstrip("^=@") for name in names]
