"""What is wrong with a setting, and the questions that several settings have in common."""

from __future__ import annotations

import difflib
import ipaddress
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one setting. ``id`` is the system check's id, which never changes."""

    id: str
    message: str
    hint: str


def unknown_names(id: str, where: str, given: Iterable[object], known: Iterable[str]) -> Iterator[Problem]:
    """Find the names in ``given`` that are not ``known``; the hint is the nearest that is."""
    spelled = {name.lower(): name for name in known}
    for name in given:
        if name in spelled.values():
            continue
        near = difflib.get_close_matches(str(name).lower(), spelled, n=1, cutoff=0.5)
        names = ", ".join(spelled.values()) or "none"
        yield Problem(
            id,
            f"{where} has no setting {name!r}.",
            f"Did you mean {spelled[near[0]]!r}?" if near else f"Known are: {names}.",
        )


def is_count(value: object) -> bool:
    """Tell whether ``value`` is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_duration(value: object) -> bool:
    """Tell whether ``value`` is a number of seconds above 0, and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def is_dotted_path(value: object) -> bool:
    """Tell whether ``value`` may be the dotted path of something in a module."""
    parts = value.split(".") if isinstance(value, str) else ()
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def is_url(value: object) -> bool:
    """Tell whether ``value`` is the URL of an HTTP server."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def unsafe_endpoints(id: str, service: str, urls: Iterable[tuple[str, str | None]]) -> Iterator[Problem]:
    """Find which of these (where it is set, URL) lead to this very machine or go without TLS: fine in development only.

    Args:
        id: the check's.
        service: what such a URL would be an emulation of.
        urls: where each is set, and the URL; None and ``""`` if it isn't.
    """
    for where, url in urls:
        if url and _is_unsafe(url):
            yield Problem(
                id,
                f"{where} is {url!r}: an emulated {service}, or one that is spoken to without TLS.",
                "Leave it out, so that AWS's own endpoint is used, or give the https:// URL of a VPC endpoint.",
            )


def _is_unsafe(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
