"""Fakes of the engine's seams, which count and can be broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import Event
from django_asherah.envelope.policy import CryptoPolicy
from django_asherah.envelope.records import EnvelopeKeyRecord, KeyMeta
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import KMSError, MetastoreError
from django_asherah.metastores.memory import MemoryMetastore

START = 1_700_000_000
"""A whole number of minutes, so that the first keys are created exactly then."""

START -= START % 60
DAY = 24 * 60 * 60


class FakeClock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


class CountingKMS:
    """A static KMS that counts its calls, and can be down."""

    def __init__(self, calls: Counter[str]) -> None:
        self._cipher = Cipher(b"m" * 32)
        self._calls = calls
        self.down = False

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        self._called("wrap")
        return self._cipher.seal(key)

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        self._called("unwrap")
        return self._cipher.open_key(wrapped)

    def _called(self, name: str) -> None:
        self._calls[name] += 1
        if self.down:
            raise KMSError("down", {"here": RuntimeError("down")})


class CountingMetastore(MemoryMetastore):
    """A metastore that counts its calls, can be down, and can have a transaction."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self._calls = calls
        self.down = False
        self._committed: dict[KeyMeta, EnvelopeKeyRecord] | None = None

    def load(self, meta: KeyMeta) -> EnvelopeKeyRecord | None:
        self._called("load")
        return super().load(meta)

    def load_many(self, metas: Sequence[KeyMeta]) -> dict[KeyMeta, EnvelopeKeyRecord]:
        self._called("load_many")
        return super().load_many(metas)

    def load_latest(self, key_id: str) -> EnvelopeKeyRecord | None:
        self._called("load_latest")
        return super().load_latest(key_id)

    def store(self, key_id: str, record: EnvelopeKeyRecord) -> bool:
        self._called("store")
        return super().store(key_id, record)

    def load_latest_many(self, key_ids: Sequence[str]) -> dict[str, EnvelopeKeyRecord]:
        self._called("load_latest_many")
        return super().load_latest_many(key_ids)

    def store_many(self, records: Mapping[KeyMeta, EnvelopeKeyRecord]) -> set[KeyMeta]:
        self._called("store_many")
        return super().store_many(records)

    def is_committed(self, meta: KeyMeta, record: EnvelopeKeyRecord) -> bool:
        return self._committed is None or self._committed.get(meta) == record

    def begin(self) -> None:
        self._committed = dict(self.records)

    def commit(self) -> None:
        self._committed = None

    def roll_back(self) -> None:
        assert self._committed is not None
        self.records, self._committed = self._committed, None

    def revoke(self, meta: KeyMeta, revoked: bool = True) -> None:
        old = self.records[meta]
        self.records[meta] = EnvelopeKeyRecord(
            revoked=revoked, created=old.created, key=old.key, parent_key_meta=old.parent_key_meta
        )

    def _called(self, name: str) -> None:
        self._calls[name] += 1
        if self.down:
            raise MetastoreError("down")


class World:
    """An engine with everything around it faked."""

    def __init__(self, **options: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.clock = FakeClock()
        self.kms = CountingKMS(self.calls)
        self.metastore = CountingMetastore(self.calls)
        self.events: list[Event] = []
        self.policy: CryptoPolicy = options.pop("policy", CryptoPolicy())
        self.options = options
        self.factory = self.new_process()

    def new_process(self, service: str = "svc", product: str = "prod", **options: Any) -> SessionFactory:
        """Return a factory over the same metastore and KMS that holds no key yet; ``options`` replace the world's."""
        return SessionFactory(
            service,
            product,
            self.metastore,
            self.kms,
            self.policy,
            clock=self.clock,
            timer=self.clock,
            on_event=self.events.append,
            **self.options | options,
        )

    def taken_calls(self) -> dict[str, int]:
        """Return the calls counted since the last time, and begin again."""
        taken = dict(self.calls)
        self.calls.clear()
        return taken


SK_ID = "_SK_svc_prod"
IK_ID = "_IK_p_svc_prod"


def chain_text(error: BaseException) -> str:
    """Return all that an error and its chain say, the hidden context included."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen!r} {seen} {vars(seen)}")
        seen = seen.__cause__ or seen.__context__
    return "\n".join(texts)
