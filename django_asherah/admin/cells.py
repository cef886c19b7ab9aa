"""What the cells of the list and of the detail page show. Whatever comes from a row is escaped."""

from __future__ import annotations

from datetime import UTC, datetime

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import template_localtime  # type: ignore[attr-defined]

from django_asherah.admin.rows import RowInfo
from django_asherah.envelope.records import MAX_CREATED
from django_asherah.lifecycle.regions import RegionCopy, RegionFit

NONE = "—"
DAY = 24 * 60 * 60
_NOTES = {
    RegionFit.WRAPPED: "",
    RegionFit.MISSING: "missing",
    RegionFit.ANOTHER_KEY: "another key",
    RegionFit.NOT_CONFIGURED: "not configured",
}


def badge(word: str) -> SafeString:
    """Return a state as a badge: its word, in its colour."""
    return format_html('<span class="asherah-badge asherah-{}">{}</span>', word, word)


def state_badge(info: RowInfo) -> SafeString:
    """Return the badge of a row's state."""
    return badge(info.state)


def region_chip(copy: RegionCopy) -> SafeString:
    """Return one region of a system key, with what is to be said of it."""
    note = _NOTES[copy.fit] or ("preferred" if copy.is_preferred else "")
    kind = "wrapped" if copy.fit is RegionFit.WRAPPED else "flagged"
    text = format_html(" <em>{}</em>", note) if note else ""
    return format_html('<span class="asherah-region asherah-{}">{}{}</span>', kind, copy.region, text)


def regions(info: RowInfo) -> SafeString | str:
    """Return the regions of a system key."""
    copies = info.key.copies if info.key else ()
    return format_html_join(" ", "{}", ((region_chip(copy),) for copy in copies)) or NONE


def moment(second: float) -> SafeString:
    """Return Unix seconds to the minute, in the current time zone: short, and in an order that sorts."""
    if second > MAX_CREATED - DAY:  # The current time zone may be in the year 10000 already.
        return format_html("<time>{}</time>", "end of 9999" if second <= MAX_CREATED else "after 9999")
    local = template_localtime(datetime.fromtimestamp(second, UTC))
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', local.isoformat(), f"{local:%A %c %Z}", f"{local:%Y-%m-%d %H:%M}"
    )


def partition(info: RowInfo) -> SafeString | str:
    """Return whose key it is, if it is anybody's."""
    if info.key is not None and not info.key.ours:
        return SafeString("<em>another service</em>")
    return (info.key and info.key.partition) or NONE
