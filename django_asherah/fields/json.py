"""The field type for JSON documents."""

from __future__ import annotations

import json
from typing import Any

from django.db import models
from django.db.models.expressions import Value

from django_asherah.exceptions import DecryptionError, EncryptionError
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.records import output_field
from django_asherah.fields.sealed import PreparedValue
from django_asherah.fields.utf8 import decode_text


class EncryptedJSONField(EncryptedFieldMixin[Set_contra, Get_co], models.JSONField):  # type: ignore[misc]
    """A ``JSONField`` whose column holds only records: keys and shape of the document are sealed with it.

    None is SQL NULL. JSON's null is written as with Django's own field: ``Value(None, JSONField())``.
    NaN and infinities are refused: they are not JSON.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._encode = (self.encoder or json.JSONEncoder)(
            ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode

    def dump(self, value: Any) -> bytes:
        """Return the document as JSON in UTF-8.

        Raises:
            EncryptionError: it holds what JSON can't.
        """
        try:
            text = self._encode(value)
        except (TypeError, ValueError, RecursionError) as exc:
            reason = type(exc).__name__
        else:
            return _encode_json(text)
        # Raised here, because the cause's message and frames may hold the value.
        raise EncryptionError(
            f"the document can't be written as JSON ({reason}): give the field an encoder for what it holds; NaN, "
            "infinities and circular references are never JSON"
        )

    def load(self, payload: bytes) -> Any:
        """Return the document.

        Raises:
            DecryptionError: the payload is not JSON.
        """
        text = decode_text(payload)
        try:
            return json.loads(text, cls=self.decoder)
        except (ValueError, RecursionError):  # It holds the whole text, so it may not stay in the chain.
            pass
        raise DecryptionError("the record opens, but holds no JSON: another kind of field wrote it")

    def _expression(self, value: Any, partition: str | None) -> Any:
        if isinstance(value, Value) and isinstance(output_field(value), models.JSONField):
            # JSON's null, which Django has users write as such an expression.
            is_null = value.value is None
            return (
                PreparedValue(payload=b"null", partition=partition)
                if is_null
                else self._prepared(value.value, partition)
            )
        return value


def _encode_json(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate is no Unicode text, but its JSON escape is JSON, and what Django's own field stores.
        return json.dumps(json.loads(text)).encode()
