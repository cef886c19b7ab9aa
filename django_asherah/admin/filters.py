"""Filters of the list of keys."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.http import HttpRequest

from django_asherah.admin.overview import get_overview
from django_asherah.admin.rows import PREFIXES, Rows, in_state, of_kind
from django_asherah.lifecycle import KeyState

_WITHOUT = "without "


class KindFilter(SimpleListFilter):
    """By kind."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return both kinds."""
        return [(kind, kind) for kind in PREFIXES]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Filter."""
        return of_kind(queryset, self.value() or "") if self.value() in PREFIXES else queryset


class StateFilter(SimpleListFilter):
    """By state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Return every state."""
        return [(state.value, state.value) for state in KeyState]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Filter."""
        value = self.value()
        if value not in list(KeyState):
            return queryset
        return in_state(queryset, KeyState(value), get_overview(request).context)


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

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        """Filter."""
        value = self.value()
        if not value:
            return queryset
        region, wanted = value.removeprefix(_WITHOUT), not value.startswith(_WITHOUT)
        keys = get_overview(request).system_keys
        return queryset.filter(pk__in=[pk for pk, key in keys if (region in key.regions) is wanted])
