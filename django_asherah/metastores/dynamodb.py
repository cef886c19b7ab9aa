"""The metastore in a DynamoDB table, as every official SDK lays it out.

Source: ``go/appencryption/plugins/aws-v2/dynamodb/metastore`` of godaddy/asherah: hash key ``Id`` (S), range key
``Created`` (N), attribute ``KeyRecord`` (M) with the members of an envelope key record. It may never change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from django_asherah.botoclient import BotoClient
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.exceptions import InvalidRecordError, MetastoreError

MOST_AT_ONCE = 100
"""Keys that one ``BatchGetItem`` may ask for."""


class DynamoDBMetastore:
    """Key records in a DynamoDB table. Thread-safe; a forked child makes a client of its own.

    Reads are strongly consistent, and a record is put only where none stands. Credentials come from boto3's own chain.

    Args:
        table_name: the table's name.
        region: its AWS region; what boto3 finds if None.
        endpoint_url: a URL to use instead of AWS's own.
        connect_timeout, read_timeout: seconds.
        session: a ``boto3.Session``, or a function without arguments that returns one.
    """

    def __init__(
        self,
        *,
        table_name: str = "EncryptionKey",
        region: str | None = None,
        endpoint_url: str | None = None,
        connect_timeout: float = 2.0,
        read_timeout: float = 5.0,
        session: Any = None,
    ) -> None:
        self.table_name = table_name
        self._client = BotoClient(
            "dynamodb",
            session=session,
            region=region,
            endpoint_url=endpoint_url,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_attempts=3,
        )

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        answer = self._call("get_item", TableName=self.table_name, Key=_key(meta), ConsistentRead=True)
        return _record(answer.get("Item"), str(meta))

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are, with one call for each 100."""
        found: dict[KeyMeta, EnvelopeKeyRecord] = {}
        for item in self._items([_key(meta) for meta in dict.fromkeys(metas)]):
            with suppress(InvalidRecordError):
                record = _read(item, "")
                found[KeyMeta(item["Id"]["S"], record.created)] = record
        return found

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None."""
        answer = self._call(
            "query",
            TableName=self.table_name,
            KeyConditionExpression="Id = :id",
            ExpressionAttributeValues={":id": {"S": key_id}},
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=1,
        )
        return _record(next(iter(answer.get("Items", [])), None), f"{key_id} (latest)")

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` if its (key id, creation time) is free."""
        item = {**_key(KeyMeta(key_id, record.created)), "KeyRecord": {"M": _members(record)}}
        try:
            self._call("put_item", TableName=self.table_name, Item=item, ConditionExpression="attribute_not_exists(Id)")
        except _Duplicate:
            return False
        return True

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Return True: nothing here hangs on a transaction."""
        return True

    def _items(self, waiting: list[Any]) -> Iterator[Any]:
        while waiting:
            request = {"Keys": waiting[:MOST_AT_ONCE], "ConsistentRead": True}
            answer = self._call("batch_get_item", RequestItems={self.table_name: request})
            yield from answer["Responses"].get(self.table_name, [])
            # What was too much for one answer is named in it.
            left = answer.get("UnprocessedKeys", {}).get(self.table_name, {})
            waiting = left.get("Keys", []) + waiting[MOST_AT_ONCE:]

    def _call(self, method: str, **parameters: Any) -> Any:
        try:
            return getattr(self._client.get(), method)(**parameters)
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                raise _Duplicate from None
            raise self._failure(exc) from exc
        except BotoCoreError as exc:
            raise self._failure(exc) from exc

    def _failure(self, cause: Exception) -> MetastoreError:
        return MetastoreError(f"the DynamoDB table {self.table_name!r} failed: {type(cause).__name__}: {cause}")

    def __repr__(self) -> str:
        return f"<DynamoDBMetastore {self.table_name}>"


class _Duplicate(Exception):  # noqa: N818 - it is an answer, not an error
    """Another record stands there."""


def _key(meta: KeyMeta) -> dict[str, Any]:
    return {"Id": {"S": meta.key_id}, "Created": {"N": str(meta.created)}}


def _members(record: EnvelopeKeyRecord) -> dict[str, Any]:
    members: dict[str, Any] = {
        "Created": {"N": str(record.created)},
        "Key": {"S": base64.b64encode(record.key).decode()},
    }
    if record.revoked:
        members["Revoked"] = {"BOOL": True}
    if record.parent_key_meta is not None:
        parent = record.parent_key_meta
        members["ParentKeyMeta"] = {"M": {"KeyId": {"S": parent.key_id}, "Created": {"N": str(parent.created)}}}
    return members


def _record(item: Any, name: str) -> EnvelopeKeyRecord | None:
    return None if item is None else _read(item, name)


def _read(item: Any, name: str) -> EnvelopeKeyRecord:
    try:
        return msgspec.convert(_plain(item["KeyRecord"]), EnvelopeKeyRecord)
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as exc:
        reason = f"{type(exc).__name__}: {exc}"
    raise InvalidRecordError(f"key {name}: not an envelope key record: {reason}")


def _plain(attribute: dict[str, Any]) -> Any:
    """Return the value of one DynamoDB attribute."""
    ((kind, value),) = attribute.items()
    if kind == "M":
        return {name: _plain(member) for name, member in value.items()}
    if kind == "N":
        return int(value)
    return None if kind == "NULL" else value
