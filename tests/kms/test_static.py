"""The static KMS."""

from __future__ import annotations

import pytest

from django_asherah.exceptions import KMSError
from django_asherah.kms.static import StaticKMS

MASTER = b"m" * 32
KEY = bytes(range(32))


def test_a_key_comes_back() -> None:
    kms = StaticKMS(MASTER)
    wrapped = kms.encrypt_key(KEY)
    assert len(wrapped) == 60
    assert kms.decrypt_key(wrapped) == KEY


def test_another_master_key_does_not_open_it() -> None:
    wrapped = StaticKMS(MASTER).encrypt_key(KEY)
    with pytest.raises(KMSError, match="the static master key does not open it"):
        StaticKMS(b"n" * 32).decrypt_key(wrapped)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_master_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        StaticKMS(bytes(length))


@pytest.mark.parametrize("blob", [b"", b"x", b"x" * 60, b"x" * 61])
def test_garbage_is_refused(blob: bytes) -> None:
    with pytest.raises(KMSError):
        StaticKMS(MASTER).decrypt_key(blob)


def test_the_key_is_not_in_the_repr() -> None:
    assert repr(StaticKMS(MASTER)) == "<StaticKMS: key not shown>"
