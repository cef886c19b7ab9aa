"""Two stand-ins for a KMS with regions: one stores wrapped keys as AWS KMS does, the other in a format of its own.

Whatever asks a KMS for its regions must get on with both. Their regions can be switched off.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import sha256

from django_asherah.conf import Settings
from django_asherah.envelope.aead import Cipher
from django_asherah.exceptions import DecryptionError, InvalidRecordError, KMSError
from django_asherah.kms.health import LastAnswer
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped


class PretendedRegions(ABC):
    """Seals a system key with a key of each region, which is made of its master key's name."""

    def __init__(self, settings: Settings) -> None:
        self.master_keys = dict(settings.kms_options["arns"])
        self.down: set[str] = settings.kms_options.get("down", set())
        self.answers: dict[str, LastAnswer] = {}

    @abstractmethod
    def encode(self, sealed: dict[str, tuple[str, bytes]]) -> bytes:
        """Return, as it is stored, what is sealed for each region: (its master key's name, the sealed system key)."""

    @abstractmethod
    def decode(self, wrapped: bytes) -> dict[str, tuple[str, bytes]]:
        """Undo :meth:`encode`, or raise ``InvalidRecordError``."""

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        regions = [region for region in self.master_keys if region not in self.down]
        return self.encode({region: self._seal(region, key) for region in regions})

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        failures: dict[str, Exception] = {}
        for region in self.master_keys:
            try:
                return self.decrypt_key_in(region, wrapped)
            except KMSError as exc:
                failures[region] = exc
        raise KMSError("no region", failures)

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        name, sealed = self.decode(wrapped).get(region, ("", b""))
        if region in self.down or name != self.master_keys[region]:
            raise KMSError(f"{region} can't")
        return self._open(name, sealed)

    def regions_of(self, wrapped: bytes) -> dict[str, str]:
        return {region: name for region, (name, _) in self.decode(wrapped).items()}

    def check_region(self, region: str) -> None:
        self._require(region)

    def check_wrap(self, region: str) -> None:
        self._require(region)

    def rewrap(self, wrapped: bytes, *, old_master_keys: Iterable[str] = (), allow_missing: bool = False) -> bytes:
        held, key = self.decode(wrapped), self._recover(wrapped, set(old_master_keys))
        for region in self.master_keys:
            if not allow_missing:
                self._require(region)
        new = {}
        for region, name in self.master_keys.items():
            if held.get(region, ("", b""))[0] == name:
                new[region] = held[region]
            elif region not in self.down:
                new[region] = self._seal(region, key)
        return wrapped if new == held else self.encode(new)

    def last_answers(self) -> dict[str, LastAnswer]:
        return self.answers

    def _recover(self, wrapped: bytes, old: set[str]) -> bytearray:
        try:
            return self.decrypt_key(wrapped)
        except KMSError:
            for name, sealed in self.decode(wrapped).values():
                if name in old:
                    return self._open(name, sealed)
            raise

    def _seal(self, region: str, key: bytes | bytearray) -> tuple[str, bytes]:
        name = self.master_keys[region]
        return name, _cipher(name).seal(key)

    def _open(self, name: str, sealed: bytes) -> bytearray:
        try:
            return _cipher(name).open_key(sealed)
        except DecryptionError as exc:
            raise KMSError(f"{name} does not open it") from exc

    def _require(self, region: str) -> None:
        self.answers[region] = LastAnswer(region not in self.down, 0.0)
        if region in self.down:
            raise KMSError(f"{region} is down")


def _cipher(name: str) -> Cipher:
    return Cipher(sha256(name.encode()).digest())


class PretendedAws(PretendedRegions):
    """Stores wrapped keys in the JSON of AWS KMS, though each KEK in it is the sealed system key itself."""

    def encode(self, sealed: dict[str, tuple[str, bytes]]) -> bytes:
        keks = [RegionKek(region, name, blob) for region, (name, blob) in sealed.items()]
        return encode_wrapped(WrappedSystemKey(bytes(60), keks))

    def decode(self, wrapped: bytes) -> dict[str, tuple[str, bytes]]:
        return {kek.region: (kek.arn, kek.encrypted_kek) for kek in decode_wrapped(wrapped).kms_keks}


class OwnKMS(PretendedRegions):
    """Stores wrapped keys in JSON of its own, which nobody else can read."""

    def encode(self, sealed: dict[str, tuple[str, bytes]]) -> bytes:
        return json.dumps({region: [name, blob.hex()] for region, (name, blob) in sealed.items()}).encode()

    def decode(self, wrapped: bytes) -> dict[str, tuple[str, bytes]]:
        try:
            return {region: (name, bytes.fromhex(blob)) for region, (name, blob) in json.loads(wrapped).items()}
        except (ValueError, AttributeError) as exc:
            raise InvalidRecordError(f"not a key of this KMS: {type(exc).__name__}") from exc
