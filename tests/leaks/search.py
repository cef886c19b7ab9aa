"""Looks for secrets in whatever form they might lie about."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator
from types import TracebackType
from typing import Any


def forms(secret: bytes) -> set[bytes]:
    """Return ``secret`` as it stands in memory, files, logs, JSON, URLs and base64 at any of its three offsets."""
    hexed = secret.hex()
    found = {secret, hexed.encode(), hexed.upper().encode(), repr(secret)[2:-1].encode(), repr(list(secret)).encode()}
    for offset in range(3):
        # Characters that depend on what stands before and after the secret are left out.
        coded = base64.b64encode(bytes(offset) + secret)
        inner = coded[(0, 2, 3)[offset] : -4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return found
    escaped = json.dumps(text)[1:-1].encode()
    return found | {text.encode("utf-16-le"), escaped, urllib.parse.quote(text).encode(), text[::-1].encode()}


def holds(haystack: bytes | str, *secrets: bytes) -> list[bytes]:
    """Return the forms of ``secrets`` that stand in ``haystack``."""
    blob = haystack.encode("utf-8", "surrogatepass") if isinstance(haystack, str) else haystack
    return sorted(form for secret in secrets for form in forms(secret) if form in blob)


def shown(value: Any) -> str:
    """Return a variable as a debug page shows it; a half-made object may have no repr."""
    try:
        return repr(value)
    except Exception:
        return ""


def errors_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and every one that hangs on it: causes, hidden contexts and regions' failures."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
            waiting += getattr(one, "failures", {}).values()


def frames_of(error: BaseException) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield module and local variables of every frame that hangs on an error, as a debug page would show them."""
    for one in errors_of(error):
        trace: TracebackType | None = one.__traceback__
        while trace is not None:
            yield trace.tb_frame.f_globals.get("__name__", "?"), dict(trace.tb_frame.f_locals)
            trace = trace.tb_next


def holding_frames(error: BaseException, *secrets: bytes) -> list[str]:
    """Return ``module.variable`` for every local variable that shows one of ``secrets``, outside of the tests."""
    return sorted(
        {
            f"{module}:{name}"
            for module, variables in frames_of(error)
            if not module.startswith("tests.")
            for name, value in variables.items()
            if holds(shown(value), *secrets)
        }
    )
