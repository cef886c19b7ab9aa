"""What may be done to keys from the admin. Every deed is written to the admin log."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from django_asherah.admin import cells
from django_asherah.admin.overview import get_overview
from django_asherah.admin.pages import render_page
from django_asherah.admin.rows import attach_infos, info_of, key_rows, read_row
from django_asherah.audit import acting_as
from django_asherah.envelope.partition import KeyKind
from django_asherah.exceptions import AsherahError
from django_asherah.lifecycle import KeyInfo, revoke, verify_key
from django_asherah.models import EncryptionKey

Chosen = tuple[EncryptionKey, KeyInfo]

MOST_CHOSEN = 10
"""Keys: every one is a call to every region, while somebody waits for the page."""

MOST_COUNTED = 1000


Action = Callable[[Any, HttpRequest, Any], HttpResponse | None]


def done_by_user(action: Action) -> Action:
    """Let the audit lines of an action name the user: ``admin:alice#7``, with the primary key."""

    @wraps(action)
    def wrapper(model_admin: Any, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        with acting_as(f"admin:{request.user.get_username()}#{request.user.pk}"):
            return action(model_admin, request, queryset)

    return wrapper


@admin.action(description="Verify in every region", permissions=["verify"])
@done_by_user
def verify_keys(model_admin: ModelAdmin[Any], request: HttpRequest, queryset: QuerySet[Any, Any]) -> None:
    """Unwrap the keys in every region, and say what failed."""
    for row, key in _chosen(model_admin, request, queryset):
        if not key.ours:
            text = f"{key.meta} is another service's key: these settings don't name its master keys."
            model_admin.message_user(request, text, messages.WARNING)
            continue
        report = verify_key(key.meta)
        if report.problems:
            found = "; ".join(reason for _, reason in report.problems)
            text, level = f"Verified {key.meta}, and it failed: {found}.", messages.ERROR
        else:
            text, level = f"Verified {key.meta}: it opens{_where(request)}.", messages.SUCCESS
        model_admin.log_change(request, row, text)
        model_admin.message_user(request, text, level)


@admin.action(description="Revoke…", permissions=["revoke"])
@done_by_user
def revoke_keys(
    model_admin: ModelAdmin[Any], request: HttpRequest, queryset: QuerySet[Any, Any]
) -> HttpResponse | None:
    """Ask, and then withdraw the keys from new writes."""
    chosen = _chosen(model_admin, request, queryset)
    if not chosen:
        return None
    if "confirmed" not in request.POST:
        return _confirmation(model_admin, request, chosen)
    for row, key in chosen:
        _revoke(model_admin, request, row, key)
    return None


def _chosen(model_admin: ModelAdmin[Any], request: HttpRequest, queryset: QuerySet[Any, Any]) -> list[Chosen]:
    rows = list(queryset[: MOST_CHOSEN + 1])
    if len(rows) > MOST_CHOSEN:
        model_admin.message_user(
            request,
            f"Choose {MOST_CHOSEN} keys at the most. For more, there are asherah_verify and asherah_revoke.",
            messages.ERROR,
        )
        return []
    attach_infos(get_overview(request).context, rows)
    keys = []
    for row in rows:
        info = info_of(row)
        if info.key is None:
            model_admin.message_user(request, f"{row} can't be read: {info.problem}", messages.ERROR)
        else:
            keys.append((row, info.key))
    return keys


def _where(request: HttpRequest) -> str:
    regions = get_overview(request).context.regions
    return f" in {', '.join(regions)}" if regions else ""


def _confirmation(model_admin: ModelAdmin[Any], request: HttpRequest, chosen: list[Chosen]) -> HttpResponse:
    interval = get_overview(request).context.factory.policy.revoke_check_interval
    return render_page(
        model_admin,
        request,
        "revoke_confirmation",
        title="Are you sure?",
        chosen=[
            {
                "row": row,
                "key": key,
                "state": cells.state_badge(info_of(row)),
                "partition": cells.partition(info_of(row)),
                "children": _count_children(request, key),
            }
            for row, key in chosen
        ],
        minutes=max(1, round(interval / 60)),
    )


def _count_children(request: HttpRequest, key: KeyInfo) -> str:
    if key.kind is not KeyKind.SYSTEM:
        return ""
    context = get_overview(request).context
    rows = key_rows(context).candidate_children(key.meta)[: MOST_COUNTED + 1]
    candidates = [read_row(context, row, is_newest=True) for row in rows]
    count = sum(isinstance(each, KeyInfo) and each.parent == key.meta for each in candidates)
    if count > MOST_COUNTED:
        return f"more than {MOST_COUNTED} intermediate keys"
    return "1 intermediate key" if count == 1 else f"{count} intermediate keys"


def _revoke(model_admin: ModelAdmin[Any], request: HttpRequest, row: EncryptionKey, key: KeyInfo) -> None:
    try:
        report = revoke(key.meta.key_id, key.meta.created)
    except AsherahError as exc:
        model_admin.message_user(request, f"{key.meta} was not revoked: {exc}", messages.ERROR)
        return
    if not report.changed:
        model_admin.message_user(request, f"{key.meta} was revoked already.", messages.INFO)
        return
    text = f"Revoked {key.meta}."
    model_admin.log_change(request, row, text)
    model_admin.message_user(request, text, messages.SUCCESS)
