"""What was done to which key: one line on the logger ``django_asherah.audit``, and a signal."""

from __future__ import annotations

import json
import logging
from typing import Any

from django.dispatch import Signal

from django_asherah.envelope.session import SessionFactory

logger = logging.getLogger("django_asherah.audit")


def record(signal: Signal, action: str, *, level: int = logging.INFO, **details: Any) -> None:
    """Write the line ``action name=value …``, and send the signal with the same details."""
    text = "".join(f" {name}={_word(value)}" for name, value in details.items())
    logger.log(level, "%s%s", action, text)
    signal.send_robust(SessionFactory, **details)


def _word(value: Any) -> str:
    """Return ``value`` in a form that can't be mistaken for the next detail or another line."""
    if isinstance(value, Exception):
        value = f"{type(value).__name__}: {value}"
    text = ",".join(value) if isinstance(value, list) else str(value)
    plain = text.isprintable() and not any(char in text for char in ' "=')
    return text if plain else json.dumps(text)
