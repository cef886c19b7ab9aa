"""``EncryptionKey`` in the admin."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import Error as DatabaseFailure
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_asherah import engine
from django_asherah.admin import cells
from django_asherah.admin.actions import revoke_keys, verify_keys
from django_asherah.admin.changelist import KeyChangeList
from django_asherah.admin.filters import KindFilter, RegionFilter, StateFilter
from django_asherah.admin.overview import get_overview
from django_asherah.admin.pages import render_page
from django_asherah.admin.rows import KeyRows, attach_infos, info_of, key_rows
from django_asherah.admin.tree import Tree
from django_asherah.conf import get_settings
from django_asherah.exceptions import AsherahError
from django_asherah.metastores.sql import keys_in_utc
from django_asherah.models import EncryptionKey

View = Callable[..., HttpResponse]

_LOOKUPS = ("key_id", "created", *(each.parameter_name for each in (KindFilter, StateFilter, RegionFilter)))


def shows_why_unavailable(view: View) -> View:
    """Show a page that says why there are no keys to be seen, in the place of an error page."""

    @wraps(view)
    def wrapper(self: EncryptionKeyAdmin, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            alias = engine.get_keys_database()
            with keys_in_utc(connections[alias]) if alias else nullcontext():
                return view(self, request, *args, **kwargs)
        except (AsherahError, ImproperlyConfigured) as exc:
            return render_page(self, request, "unavailable", reason=str(exc), is_about_table=False)
        except DatabaseFailure as exc:
            reason = str(exc).partition("\n")[0]
            return render_page(self, request, "unavailable", reason=reason, is_about_table=True)

    return wrapper


@admin.register(EncryptionKey)
class EncryptionKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The key table, read-only. What it shows never holds key material, sealed or not."""

    list_display = ("key_id", "kind", "partition", "state", "made", "expires", "parent_or_regions")
    list_filter = (KindFilter, StateFilter, RegionFilter)
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-created", "key_id")
    search_fields = ("key_id",)
    search_help_text = "Part of a key id, such as a partition."
    actions = (verify_keys, revoke_keys)

    class Media:
        css: ClassVar[dict[str, list[str]]] = {"all": ["django_asherah/admin.css"]}

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Hide the model where no Django database holds the keys."""
        return super().has_module_permission(request) and _may_be_in_database()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: keys make themselves."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: with a key goes all data under it."""
        return False

    def has_verify_permission(self, request: HttpRequest) -> bool:
        """Whether the user may have keys verified, which asks every region's KMS."""
        return self._may(request, "verify")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whether the user may revoke keys."""
        return self._may(request, "revoke")

    def _may(self, request: HttpRequest, what: str) -> bool:
        return self.has_view_permission(request) and request.user.has_perm(
            f"{self.opts.app_label}.{what}_{self.opts.model_name}"
        )

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse to filter by the record: whoever may ask whether it begins with "A" can read it."""
        return lookup.partition("__")[0] in _LOOKUPS

    def get_queryset(self, request: HttpRequest) -> KeyRows:
        """Return the keys of the database that the settings name."""
        return key_rows(get_overview(request).context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeyChangeList]:
        """Return the list that counts nothing."""
        return KeyChangeList

    @shows_why_unavailable
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list under its summary, or run an action."""
        context = {"title": "Encryption keys", "overview": get_overview(request).summary}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @shows_why_unavailable
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one key."""
        if request.method != "GET":
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            missing: HttpResponse = self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
            return missing
        context = get_overview(request).context
        attach_infos(context, [row])
        info = info_of(row)
        return render_page(
            self,
            request,
            "detail",
            title=row.key_id,
            row=row,
            key=info.key,
            problem=info.problem,
            partition=cells.partition(info),
            state=cells.state_badge(info),
            made=self.made(row),
            expires=self.expires(row),
            parent=self.parent(row),
            copies=[(copy, cells.region_chip(copy)) for copy in info.key.copies] if info.key else [],
            tree=info.key and Tree(context, row, info.key, info.parent_pk, after=request.GET.get("after", "")),
            may_verify=self.has_verify_permission(request),
            may_revoke=self.has_revoke_permission(request),
        )

    @shows_why_unavailable
    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show who verified or revoked a key."""
        return super().history_view(request, object_id, extra_context)

    @admin.display(ordering="key_id")
    def kind(self, row: EncryptionKey) -> str:
        """Return ``system`` or ``intermediate``."""
        key = info_of(row).key
        return key.kind.value if key else cells.NONE

    def partition(self, row: EncryptionKey) -> SafeString | str:
        """Return whose key it is."""
        return cells.partition(info_of(row))

    def state(self, row: EncryptionKey) -> SafeString:
        """Return what the key is good for."""
        return cells.state_badge(info_of(row))

    @admin.display(ordering="created", description="created")
    def made(self, row: EncryptionKey) -> SafeString | str:
        """Return when the key was made."""
        key = info_of(row).key
        return cells.moment(key.meta.created) if key else cells.NONE

    @admin.display(ordering="created")
    def expires(self, row: EncryptionKey) -> SafeString | str:
        """Return when the key takes no more writes."""
        key = info_of(row).key
        return cells.moment(key.expires) if key else cells.NONE

    def parent(self, row: EncryptionKey) -> SafeString | str:
        """Return a link to the key's parent."""
        info = info_of(row)
        if info.key is None or info.key.parent is None:
            return cells.NONE
        made = cells.moment(info.key.parent.created)
        if info.parent_pk is None:
            return format_html('<span class="asherah-region asherah-flagged">{} <em>missing</em></span>', made)
        url = reverse(f"{self.admin_site.name}:django_asherah_encryptionkey_change", args=[info.parent_pk])
        return format_html('<a href="{}" title="{}">{}</a>', url, info.key.parent.key_id, made)

    @admin.display(description="parent or regions")
    def parent_or_regions(self, row: EncryptionKey) -> SafeString | str:
        """Return what seals the key: its system key; the regions that wrap a system key, and those that should."""
        info = info_of(row)
        return self.parent(row) if info.key and info.key.parent else cells.regions(info)


def _may_be_in_database() -> bool:
    """Tell whether a Django database holds the keys, or the settings are wrong: the page says what is."""
    try:
        settings = get_settings()
    except ImproperlyConfigured:
        return True
    return settings.metastore_provider.find_database(settings) is not None
