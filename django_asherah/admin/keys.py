"""``EncryptionKey`` in the admin."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_asherah.admin import cells
from django_asherah.admin.actions import revoke_keys, verify_keys
from django_asherah.admin.changelist import KeyChangeList
from django_asherah.admin.filters import KindFilter, RegionFilter, StateFilter
from django_asherah.admin.overview import get_overview
from django_asherah.admin.rows import Rows, describe_rows, described, key_rows
from django_asherah.admin.tree import Tree
from django_asherah.conf import get_settings
from django_asherah.exceptions import AsherahError
from django_asherah.models import EncryptionKey

View = Callable[..., HttpResponse]

_LOOKUPS = ("key_id", "created", *(each.parameter_name for each in (KindFilter, StateFilter, RegionFilter)))


def explained(view: View) -> View:
    """Show a page that says why there are no keys to be seen, in the place of an error page."""

    @wraps(view)
    def wrapper(self: EncryptionKeyAdmin, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            return view(self, request, *args, **kwargs)
        except (AsherahError, ImproperlyConfigured) as exc:
            return self.page(request, "unavailable", reason=str(exc))
        except DatabaseFailure as exc:
            reason = str(exc).partition("\n")[0]
            return self.page(request, "unavailable", reason=reason, is_about_table=True)

    return wrapper


@admin.register(EncryptionKey)
class EncryptionKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The key table, read-only. What it shows never holds key material, sealed or not."""

    list_display = ("key_id", "kind", "partition", "state", "made", "expires", "above")
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
        try:
            elsewhere = get_settings().metastore in ("dynamodb", "memory")
        except ImproperlyConfigured:
            elsewhere = False  # The page says what is wrong.
        return super().has_module_permission(request) and not elsewhere

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

    def get_queryset(self, request: HttpRequest) -> Rows:
        """Return the keys of the database that the settings name."""
        return key_rows(get_overview(request).context.table.alias)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[KeyChangeList]:
        """Return the list that counts nothing."""
        return KeyChangeList

    @explained
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Show the list under its summary, or run an action."""
        context = {"title": "Encryption keys", "overview": get_overview(request).summary}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @explained
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
        describe_rows(context, [row])
        what = described(row)
        return self.page(
            request,
            "detail",
            title=row.key_id,
            row=row,
            info=what.info,
            problem=what.problem,
            partition=cells.partition(what),
            state=cells.state_badge(what),
            made=self.made(row),
            expires=self.expires(row),
            parent=self.parent(row),
            copies=[(copy, cells.region_chip(copy)) for copy in what.info.copies] if what.info else [],
            tree=what.info and Tree(context, row, what.info, what.parent_pk, after=request.GET.get("after", "")),
            may_verify=self.has_verify_permission(request),
            may_revoke=self.has_revoke_permission(request),
        )

    @explained
    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show who verified or revoked a key."""
        return super().history_view(request, object_id, extra_context)

    def page(self, request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
        """Return a page of this admin's own."""
        request.current_app = self.admin_site.name
        shared = {"title": "Encryption keys", "opts": self.opts, "media": self.media}
        return TemplateResponse(
            request,
            f"admin/django_asherah/encryptionkey/{name}.html",
            {**self.admin_site.each_context(request), **shared, **context},
        )

    @admin.display(ordering="key_id")
    def kind(self, row: EncryptionKey) -> str:
        """Return ``system`` or ``intermediate``."""
        info = described(row).info
        return info.kind if info else cells.NONE

    def partition(self, row: EncryptionKey) -> SafeString | str:
        """Return whose key it is."""
        return cells.partition(described(row))

    def state(self, row: EncryptionKey) -> SafeString:
        """Return what the key is good for."""
        return cells.state_badge(described(row))

    @admin.display(ordering="created", description="created")
    def made(self, row: EncryptionKey) -> SafeString | str:
        """Return when the key was made."""
        info = described(row).info
        return cells.moment(info.meta.created) if info else cells.NONE

    @admin.display(ordering="created")
    def expires(self, row: EncryptionKey) -> SafeString | str:
        """Return when the key takes no more writes."""
        info = described(row).info
        return cells.moment(info.expires) if info else cells.NONE

    def parent(self, row: EncryptionKey) -> SafeString | str:
        """Return a link to the system key above."""
        what = described(row)
        if what.info is None or what.info.parent is None:
            return cells.NONE
        made = cells.moment(what.info.parent.created)
        if what.parent_pk is None:
            return format_html('<span class="asherah-region asherah-flagged">{} <em>missing</em></span>', made)
        url = reverse(f"{self.admin_site.name}:django_asherah_encryptionkey_change", args=[what.parent_pk])
        return format_html('<a href="{}" title="{}">{}</a>', url, what.info.parent.key_id, made)

    @admin.display(description="parent or regions")
    def above(self, row: EncryptionKey) -> SafeString | str:
        """Return what seals the key: its system key; the regions that wrap a system key, and those that should."""
        what = described(row)
        return self.parent(row) if what.info and what.info.parent else cells.regions(what)
