"""Filters of the list of keys."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.http import HttpRequest

from django_asherah.admin.overview import get_overview
from django_asherah.admin.rows import KeyRows
from django_asherah.envelope.partition import KeyKind
from django_asherah.lifecycle import KeyState

_WITHOUT = "without "


class KindFilter(SimpleListFilter):
    """By kind."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every kind."""
        return [(kind.value, kind.value) for kind in KeyKind]

    def queryset(self, request: HttpRequest, queryset: Any) -> KeyRows:
        """Filter."""
        value = self.value()
        rows: KeyRows = queryset
        return rows.of_kind(KeyKind(value)) if value in list(KeyKind) else rows


class StateFilter(SimpleListFilter):
    """By state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every state."""
        return [(state.value, state.value) for state in KeyState]

    def queryset(self, request: HttpRequest, queryset: Any) -> KeyRows:
        """Filter."""
        rows: KeyRows = queryset
        value = self.value()
        if value not in list(KeyState):
            return rows
        overview = get_overview(request)
        return rows.in_state(KeyState(value), overview.context, overview.unsound)


class RegionFilter(SimpleListFilter):
    """System keys by the regions that wrap them.

    Which regions wrap a key stands in base64 inside its record, where no database can look. So the system keys, which
    are few, are read and looked through here.
    """

    title = "region of system keys"
    parameter_name = "region"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return each region, configured or met, with and without."""
        overview = get_overview(request)
        configured = overview.context.regions or {}
        met = {region for _, key in overview.system_keys for region in key.regions}
        names = [*configured, *sorted(met - configured.keys())]
        return [(name, name) for name in names] + [(_WITHOUT + name, _WITHOUT + name) for name in configured]

    def queryset(self, request: HttpRequest, queryset: Any) -> KeyRows:
        """Filter."""
        rows: KeyRows = queryset
        value = self.value()
        if not value:
            return rows
        region, wanted = value.removeprefix(_WITHOUT), not value.startswith(_WITHOUT)
        keys = get_overview(request).system_keys
        return rows.filter(pk__in=[pk for pk, key in keys if (region in key.regions) is wanted])
