"""Partitions and key ids."""

from __future__ import annotations

from typing import Any

import pytest

from django_asherah.envelope.partition import Partition, system_key_id
from django_asherah.exceptions import EncryptionError


def test_ids_are_joined_with_underscores() -> None:
    assert system_key_id("svc", "prod") == "_SK_svc_prod"
    assert Partition("tenant-7", "svc", "prod").intermediate_key_id == "_IK_tenant-7_svc_prod"


def test_a_suffix_comes_last() -> None:
    assert system_key_id("svc", "prod", "us-west-2") == "_SK_svc_prod_us-west-2"
    assert Partition("p", "svc", "prod", "us-west-2").intermediate_key_id == "_IK_p_svc_prod_us-west-2"


@pytest.mark.parametrize(
    "partition", ["a b", " ", "ä", "王", "🔑", "a_b", "a-b", "a.b", 'a"b', "a\\b", "a\nb", "Alice"]
)
def test_a_partition_may_be_nearly_anything(partition: str) -> None:
    assert Partition(partition, "s", "p").intermediate_key_id == f"_IK_{partition}_s_p"


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ("", "must not be empty"),
        ("a\0b", "NUL"),
        ("\ud800", "lone surrogates"),
        (None, "must be a str, not NoneType"),
        (7, "must be a str, not int"),
        (b"x", "must be a str, not bytes"),
        ("x" * 248, "makes a key id of 256 characters"),
    ],
)
def test_a_partition_that_no_database_can_keep_apart_is_refused(partition: Any, message: str) -> None:
    with pytest.raises(EncryptionError, match=message):
        Partition(partition, "s", "p")


def test_the_longest_partition_fits() -> None:
    assert len(Partition("x" * 247, "s", "p").intermediate_key_id) == 255


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", 'a"', "a\n", None, 5])
@pytest.mark.parametrize("place", ["service", "product"])
def test_names_that_other_sdks_cant_read_are_refused(name: Any, place: str) -> None:
    with pytest.raises(EncryptionError, match=f"^{place}"):
        Partition("p", **({"service": "s", "product": "p"} | {place: name}))
