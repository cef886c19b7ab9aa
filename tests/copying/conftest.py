"""Fields that encrypt without any authentication, and tables on their way from them to ours."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, models
from django.test.utils import isolate_apps

NONCE = 8


def stream(key: str, nonce: bytes, size: int) -> bytes:
    return hashlib.shake_256(key.encode() + nonce).digest(size)


def sealed(text: str, key: str) -> str:
    """Return what the field below stores: a nonce, and the text under a stream that a wrong key turns into garbage."""
    nonce, data = secrets.token_bytes(NONCE), text.encode()
    mixed = bytes(a ^ b for a, b in zip(data, stream(key, nonce, len(data)), strict=True))
    return base64.b64encode(nonce + mixed).decode()


class StreamField(models.TextField):
    """A field of a library that knows no wrong key: ``settings.STREAM_KEY`` gives text of some kind."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return None if value is None else sealed(value, settings.STREAM_KEY)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value is None:
            return None
        stored = base64.b64decode(value)
        key = stream(settings.STREAM_KEY, stored[:NONCE], len(stored) - NONCE)
        text = bytes(a ^ b for a, b in zip(stored[NONCE:], key, strict=True)).decode(errors="replace")
        return self.to_python(text)


class SilentField(StreamField):
    """A field that gives an empty text for what it can't decrypt."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return None if value is None else sealed(f"ok {value}", settings.STREAM_KEY)

    def to_python(self, value: Any) -> Any:
        return value[3:] if value.startswith("ok ") else ""


class RefusingField(models.TextField):
    """A field that raises, and says the value, for what begins so."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        if value and value.startswith("refused"):
            raise ValueError(f"{value} is refused")
        return value and f"value {value}"


@pytest.fixture(autouse=True)
def _key(settings: Any) -> None:
    settings.STREAM_KEY = "right"


@pytest.fixture
def make_model(transactional_db: None) -> Iterator[Callable[..., Any]]:
    """Make a model with these attributes, and its table, which goes with the test."""
    numbers = count()
    with ExitStack() as stack:

        def make(base: type[models.Model] = models.Model, **attributes: Any) -> Any:
            name = f"Copied{next(numbers)}"
            with isolate_apps("tests.testapp"):
                model = type(name, (base,), {"__module__": "tests.testapp.models", **attributes})
            with connection.schema_editor() as editor:
                editor.create_model(model)

            def drop() -> None:
                with connection.schema_editor() as editor:
                    editor.delete_model(model)

            stack.callback(drop)
            return model

        yield make
