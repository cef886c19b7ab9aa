"""Django's XML serializer, which goes by a field's internal type, with the kinds of encrypted fields."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers import xml_serializer
from django.core.serializers.base import DeserializedObject

from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.plain import as_plain


class Serializer(xml_serializer.Serializer):
    """Writes what it would write of the plain fields."""

    def handle_field(self, obj: Any, field: Any) -> None:
        """Write a field under the kind of its values."""
        super().handle_field(obj, as_plain(field))


class Deserializer(xml_serializer.Deserializer):
    """Reads what it would read into the plain fields."""

    def _handle_object(self, node: Any) -> DeserializedObject:
        read = super()._handle_object(node)  # type: ignore[misc]
        for child in node.getElementsByTagName("field"):
            _read_document(read.object, child)
        return read  # type: ignore[no-any-return]


def _read_document(instance: Any, node: Any) -> None:
    """Make a document of the text that Django takes for an encrypted one."""
    fields = {field.name: field for field in instance._meta.concrete_fields}
    field = fields.get(node.getAttribute("name"))
    if not isinstance(field, EncryptedFieldMixin) or node.getElementsByTagName("None"):
        return
    if as_plain(field).get_internal_type() == "JSONField":
        text = getattr(instance, field.attname)
        setattr(instance, field.attname, json.loads(text, cls=field.decoder))  # type: ignore[attr-defined]
