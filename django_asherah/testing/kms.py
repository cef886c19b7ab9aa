"""AWS KMS in memory, for tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from django_asherah.envelope.aead import KEY_LENGTH, Cipher


class FakeKMS:
    """AWS KMS in several regions, in memory: each has a master key, and can be switched off.

    It stands in for ``boto3.Session``, so everything above it is real: fail-over, key records, signals,
    ``asherah_status``, ``asherah_verify`` and ``asherah_rewrap``. The master keys last as long as the object, and with
    them a ``KEY_SUFFIX``: what an earlier run has left in a database that is kept hinders nobody.

    Args:
        regions: their names; the first is the preferred one.

    Attributes:
        arns: maps each region to its master key's ARN.
        calls: how often each (region, operation) was called, failed calls included.
    """

    def __init__(self, *regions: str) -> None:
        names = regions or ("us-west-2", "us-east-1")
        self.arns = {name: f"arn:aws:kms:{name}:000000000000:key/fake" for name in names}
        self.calls: Counter[tuple[str, str]] = Counter()
        self._masters = {name: Cipher(os.urandom(KEY_LENGTH)) for name in names}
        self._off: set[str] = set()
        self._suffix = os.urandom(8).hex()

    @property
    def settings(self) -> dict[str, Any]:
        """The entries of ``settings.ASHERAH`` that select it."""
        return {
            "KMS": "aws",
            "KMS_OPTIONS": {"session": self},
            "REGIONS": self.arns,
            "PREFERRED_REGION": next(iter(self.arns)),
            "KEY_SUFFIX": self._suffix,
        }

    def switch_off(self, *regions: str) -> None:
        """Make every call to these regions (all if none is named) fail, as if the network were down.

        Raises:
            KeyError: there is no such region.
        """
        self._off |= {name for name in regions or self.arns if self.arns[name]}

    def switch_on(self, *regions: str) -> None:
        """Make these regions (all if none is named) answer again."""
        self._off -= set(regions or self.arns)

    def client(self, service_name: str, *, region_name: str, **options: Any) -> _Client:
        """Return a region's KMS client, as ``boto3.Session.client`` does."""
        return _Client(self.arns[region_name], self._masters[region_name], lambda name: self._called(region_name, name))

    def _called(self, region: str, operation: str) -> None:
        self.calls[region, operation] += 1
        if region in self._off:
            raise ConnectionError(f"region {region} is switched off")

    def __repr__(self) -> str:
        return f"<FakeKMS {', '.join(self.arns)}>"


class _Client:
    """The part of boto3's KMS client that ``AwsMasterKey`` uses."""

    def __init__(self, arn: str, master: Cipher, called: Callable[[str], None]) -> None:
        self._arn = arn
        self._master = master
        self._called = called

    def generate_data_key(self, **given: Any) -> dict[str, Any]:
        self._asked("GenerateDataKey", given)
        key = os.urandom(KEY_LENGTH)
        return {"KeyId": self._arn, "Plaintext": key, "CiphertextBlob": self._master.seal(key)}

    def encrypt(self, **given: Any) -> dict[str, Any]:
        self._asked("Encrypt", given)
        return {"KeyId": self._arn, "CiphertextBlob": self._master.seal(given["Plaintext"])}

    def decrypt(self, **given: Any) -> dict[str, Any]:
        self._asked("Decrypt", given)
        return {"KeyId": self._arn, "Plaintext": self._master.open(given["CiphertextBlob"])}

    def describe_key(self, **given: Any) -> dict[str, Any]:
        self._asked("DescribeKey", given)
        key = {"Arn": self._arn, "KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}
        return {"KeyMetadata": key}

    def _asked(self, operation: str, given: dict[str, Any]) -> None:
        self._called(operation)
        if given["KeyId"] != self._arn:
            raise LookupError(f"there is no KMS key {given['KeyId']} in this region")
