"""The metastore in a DynamoDB table, as every official SDK lays it out.

Source: ``go/appencryption/plugins/aws-v2/dynamodb/metastore`` of godaddy/asherah: hash key ``Id`` (S), range key
``Created`` (N), attribute ``KeyRecord`` (M) with the members of an envelope key record. It may never change.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from django_asherah.botoclient import BotoClient
from django_asherah.deadlines import DeadlineError, Deadlines
from django_asherah.envelope.forksafe import any_fraction
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta, decode_key, printable
from django_asherah.exceptions import InvalidRecordError, MetastoreError
from django_asherah.metastores.batch_get import get_in_batches
from django_asherah.metastores.key_table import KeyRow
from django_asherah.metastores.shifts import fault_between

CALLS_AT_ONCE = 8
"""Less than the ten connections that botocore keeps open."""

_ATTEMPTS = 3
_BACKOFF = 3.0
"""Seconds that botocore waits between three attempts, at most: one, and two (its standard mode)."""


class DynamoDBMetastore:
    """Key records in a DynamoDB table. Thread-safe; a forked child makes a client of its own.

    Reads are strongly consistent, and a record is put only where none stands. Credentials come from boto3's own chain.

    Args:
        table_name: the table's name.
        region: its AWS region; what boto3 finds if None.
        endpoint_url: a URL to use instead of AWS's own.
        connect_timeout, read_timeout: seconds that one address may take to accept a connection, and that an answer may
            pause. A call, with the three attempts that botocore makes, takes no longer than three times their sum and
            the pauses between.
        session: a ``boto3.Session``, or a function without arguments that returns one.
        sleep: waits for that many seconds.
        random: returns a number from 0 up to 1, by which a pause is cut: processes shall not all ask again at once.
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
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = any_fraction,
    ) -> None:
        self.table_name = table_name
        self._sleep = sleep
        self._random = random
        self._deadline = _ATTEMPTS * (connect_timeout + read_timeout) + _BACKOFF
        self._deadlines = Deadlines("DynamoDB")
        self._client = BotoClient(
            "dynamodb",
            session=session,
            region=region,
            endpoint_url=endpoint_url,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_attempts=_ATTEMPTS,
        )

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        """Return the record with exactly this key id and creation time, or None."""
        item = self._item(meta)
        return None if item is None or _row(item).fault else self._record(item, str(meta))

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        """Return the records of those of these keys that there are, with one call for each 100."""
        found: dict[KeyMeta, EnvelopeKeyRecord] = {}
        for item in self._items([_key(meta) for meta in dict.fromkeys(metas)]):
            with suppress(InvalidRecordError):
                record = _row(item).record()
                found[KeyMeta(item["Id"]["S"], record.created)] = record
        return found

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        """Return the record with the greatest creation time of this key id, or None.

        Raises:
            InvalidRecordError: the newest row is no sound key. :meth:`versions` has the others.
        """
        for item in self._query(key_id, Limit=1):
            return self._record(item, f"{printable(key_id)} (latest)")
        return None

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` if its (key id, creation time) is free."""
        item = {**_key(KeyMeta(key_id, record.created)), "KeyRecord": {"M": _members(record)}}
        try:
            self._call("put_item", Item=item, ConditionExpression="attribute_not_exists(Id)")
        except _AnotherStandsThere:
            return False
        return True

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        """Return the record with the greatest creation time of each of these ids, with a call for each.

        Eight calls at a time: DynamoDB can't be asked for the newest of several keys at once.
        """
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            found = dict(zip(key_ids, pool.map(self.load_latest, key_ids), strict=True))
        return {key_id: record for key_id, record in found.items() if record is not None}

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        """Put those of these records whose place is free, with a call for each, eight at a time.

        ``BatchWriteItem`` knows no condition, and would put a new record over another's. ``TransactWriteItems`` does,
        but whoever put one of the same keys meanwhile, in whichever language, would get an error in place of an answer.
        """
        metas = list(records)
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            stored = pool.map(self.store, (meta.key_id for meta in metas), records.values())
            return {meta for meta, is_stored in zip(metas, stored, strict=True) if is_stored}

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        """Return True: nothing here hangs on a transaction."""
        return True

    def scan(self) -> Iterator[KeyRow]:
        """Yield every row, in constant memory: each id's newest first, the ids in an order of DynamoDB's own.

        It stores the items of one hash key together, in the order of their range key, and scans them as they are
        stored. So only one id's items are ever held.
        """
        items = (item for page in self._pages("scan", "Items") for item in page)
        for _, same in groupby(items, key=lambda item: item["Id"]["S"]):
            yield from map(_row, sorted(same, key=_created, reverse=True))

    def versions(self, key_id: str) -> Iterator[KeyRow]:
        """Yield every row of one key id, the newest first."""
        return map(_row, self._query(key_id))

    def read(self, meta: KeyMeta) -> KeyRow | None:
        """Return one key's row, or None."""
        item = self._item(meta)
        return None if item is None else _row(item)

    def children(self, parent: KeyMeta) -> Iterator[KeyRow]:
        """Yield every row that names ``parent`` as its parent."""
        pages = self._pages(
            "scan",
            "Items",
            FilterExpression="KeyRecord.ParentKeyMeta.KeyId = :id AND KeyRecord.ParentKeyMeta.Created = :created",
            ExpressionAttributeValues={":id": {"S": parent.key_id}, ":created": {"N": str(parent.created)}},
        )
        return (_row(item) for page in pages for item in page)

    def count(self) -> int:
        """Return the number of rows."""
        return sum(self._pages("scan", "Count", Select="COUNT"))

    def replace(self, row: KeyRow, record: EnvelopeKeyRecord) -> bool:
        """Put ``record`` in the place of exactly what ``row`` was read as; False if something else stands there."""
        meta, new = KeyMeta(row.key_id, record.created), {"M": _members(record)}
        try:
            self._call(
                "update_item",
                Key=_key(meta),
                UpdateExpression="SET KeyRecord = :new",
                ConditionExpression="KeyRecord = :old",
                ExpressionAttributeValues={":old": row.stored, ":new": new},
            )
        except _AnotherStandsThere:
            # A write whose answer was lost is sent again, and meets its own record.
            item = self._item(meta)
            return item is not None and item.get("KeyRecord") == new
        return True

    def _item(self, meta: KeyMeta) -> Any:
        return self._call("get_item", Key=_key(meta), ConsistentRead=True).get("Item")

    def _query(self, key_id: str, **parameters: Any) -> Iterator[Any]:
        """Yield the items of one key id, the newest first."""
        pages = self._pages(
            "query",
            "Items",
            KeyConditionExpression="Id = :id",
            ExpressionAttributeValues={":id": {"S": key_id}},
            ScanIndexForward=False,
            **parameters,
        )
        return (item for page in pages for item in page)

    def _pages(self, method: str, member: str, **parameters: Any) -> Iterator[Any]:
        """Yield this member of the answers to one question, which DynamoDB splits at a megabyte."""
        while True:
            page = self._call(method, ConsistentRead=True, **parameters)
            yield self._member(page, member)
            if "LastEvaluatedKey" not in page:
                return
            if page["LastEvaluatedKey"] == parameters.get("ExclusiveStartKey"):
                raise MetastoreError(f"{self._named} failed: it answers the same page again and again")
            parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _items(self, keys: Sequence[Any]) -> Iterator[Any]:
        """Yield the items with these keys, in no order, with one call for each 100 if all goes well."""
        return get_in_batches(self._batch, keys, self._named, sleep=self._sleep, random=self._random)

    def _batch(self, keys: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        answer = self._ask("batch_get_item", RequestItems={self.table_name: {"Keys": keys, "ConsistentRead": True}})
        left = answer.get("UnprocessedKeys", {}).get(self.table_name, {}).get("Keys", [])
        return self._member(answer, "Responses").get(self.table_name, []), left

    def _member(self, answer: Any, name: str) -> Any:
        if name not in answer:
            raise MetastoreError(f"{self._named} failed: its answer holds no {name}")
        return answer[name]

    def _record(self, item: Any, name: str) -> EnvelopeKeyRecord:
        try:
            return _row(item).record()
        except InvalidRecordError as exc:
            exc.at(f"key {name} in DynamoDB table {self.table_name!r}")
            raise

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._ask(method, TableName=self.table_name, **parameters)

    def _ask(self, method: str, **parameters: Any) -> Any:
        try:
            answer = self._deadlines.within(self._deadline, lambda: getattr(self._client.get(), method)(**parameters))
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                raise _AnotherStandsThere from None
            raise self._failure(exc) from exc
        except (BotoCoreError, DeadlineError) as exc:
            raise self._failure(exc) from exc
        except Exception as exc:  # What botocore's parser raises at an answer of another shape holds that answer.
            raise self._failure(exc) from None
        if not _is_from_dynamodb(answer["ResponseMetadata"]):
            raise MetastoreError(
                f"{self._named} failed: the answer to {method} is not from DynamoDB. Does a proxy answer in its place?"
            )
        return answer

    def _failure(self, cause: Exception) -> MetastoreError:
        return MetastoreError(f"{self._named} failed: {type(cause).__name__}: {cause}")

    @property
    def _named(self) -> str:
        return f"the DynamoDB table {self.table_name!r}"

    def __repr__(self) -> str:
        return f"<DynamoDBMetastore {self.table_name}>"


class _AnotherStandsThere(Exception):  # noqa: N818 - it is an answer, not an error
    """Another record stands where one was to be written."""


def _is_from_dynamodb(metadata: Any) -> bool:
    """Tell whether an answer can be DynamoDB's, by what boto3 says of it.

    boto3 takes an empty body and a page of HTML for an answer without members: that a record was put, or is not there.
    """
    headers = metadata["HTTPHeaders"]
    is_json = "json" in headers.get("content-type", "") and headers.get("content-length") != "0"
    return bool(metadata["HTTPStatusCode"] == 200 and is_json)


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


def _created(item: Any) -> Decimal:
    return Decimal(item["Created"]["N"])


def _row(item: Any) -> KeyRow:
    stored = item.get("KeyRecord", {"NULL": True})
    text = msgspec.json.encode(_plain(stored))
    return KeyRow(item["Id"]["S"], text, stored, _fault_of(text, item["Created"]["N"]))


def _fault_of(text: bytes, created: str) -> str:
    """Return why nothing may be written under a record which can be read, and stands under this ``Created``."""
    with suppress(InvalidRecordError):
        return fault_between(decode_key(text).created, Decimal(created))
    return ""  # Whoever decodes it says why.


def _plain(attribute: dict[str, Any]) -> Any:
    """Return the value of one DynamoDB attribute as what its JSON is made of."""
    ((kind, value),) = attribute.items()
    if kind == "M":
        return {name: _plain(member) for name, member in value.items()}
    if kind == "N":
        return msgspec.Raw(value.encode())  # Its digits as they stand there: no float may round them.
    return None if kind == "NULL" else value
