"""Records of many new rows: they are sealed once all are known, as the rows may be those of many tenants.

Django prepares every value of an ``INSERT`` before it writes the statement. So a value of a row that says its own
partition stays a :class:`PendingRecord` until then, and the first that is written gets the keys of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import FieldError

from django_asherah.envelope.keys import CryptoKey
from django_asherah.exceptions import AsherahError
from django_asherah.fields.formats import get_placeholder
from django_asherah.fields.packets import count_record
from django_asherah.fields.rows import current_partition
from django_asherah.fields.sealed import PreparedValue
from django_asherah.fields.sealing import SealingMixin, load_newest_keys

_KEYS = "django_asherah_keys"


class PendingRecord:
    """What stands in a new row for a record that is not sealed yet."""

    __slots__ = ("_field", "_prepared")

    def __init__(self, field: SealingMixin, prepared: PreparedValue) -> None:
        self._field = field
        self._prepared = prepared

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        """Seal the record, and return the SQL that stands for it.

        Raises:
            EncryptionError, KMSError, MetastoreError: it can't be sealed.
        """
        field, prepared = self._field, self._prepared
        require_whole_upsert(field, compiler.query)  # Before a key is made for it.
        try:
            key = _keys_of(compiler)[str(prepared.partition)]
            record = field.seal_for(connection.alias, prepared.payload, prepared.partition, key)
        except AsherahError as exc:
            raise exc.at(field.full_name).with_traceback(None)  # noqa: B904 - it is the same error
        if connection.vendor == "mysql":
            count_record(field, record, compiler, connection)
        return get_placeholder(record, connection), [record]

    def __repr__(self) -> str:
        return "<PendingRecord>"


def require_whole_upsert(field: Any, query: Any) -> None:
    """Refuse an ``INSERT`` that would give a row which is there a value, or a partition, without the other.

    Raises:
        FieldError: it would.
    """
    updates = getattr(query, "update_fields", None)
    if field.template is None or not updates:  # Most often: this is asked for every value.
        return
    updated = {each.name for each in updates}
    # What found the row is the same in both.
    same = {each.name for each in query.unique_fields or ()}
    saying = {column.name for column in field.partition_fields} - same
    if (field.name in updated and not saying <= updated) or (field.name not in updated and saying & updated):
        wanted = ", ".join(repr(name) for name in sorted(saying))
        raise FieldError(
            f"{field.full_name}: update_fields must name {wanted}, {field.name!r} and every other field of that "
            f"partition, or none of them: a row that is there may have another partition {field.partition!r}."
        )


def give_keys(values: Iterable[Any]) -> None:
    """Let prepared values of many rows have the keys that are to seal them, loaded and made together.

    Raises:
        EncryptionError, KMSError, MetastoreError: there is no key, and none can be made.
    """
    prepared = [value for value in values if isinstance(value, PreparedValue) and value.record is None]
    keys = load_newest_keys({value.partition for value in prepared})
    for value in prepared:
        value.key = keys.get(str(value.partition))


def _keys_of(compiler: Any) -> Mapping[str, CryptoKey]:
    """Return the newest keys of all partitions that a statement writes to, loaded and made together."""
    keys: Mapping[str, CryptoKey] | None = compiler.__dict__.get(_KEYS)
    if keys is None:
        fields = [field for field in compiler.query.fields if getattr(field, "template", None) is not None]
        partitions = {
            current_partition(field, instance)
            for instance in compiler.query.objs
            for field in fields
            if instance.__dict__.get(field.attname) is not None
        }
        keys = compiler.__dict__[_KEYS] = load_newest_keys(partitions)
    return keys
