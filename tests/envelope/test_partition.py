"""Partitions and key ids."""

from __future__ import annotations

from typing import Any

import pytest

from django_asherah.envelope.partition import (
    KeyKind,
    Partition,
    intermediate_id_tail,
    intermediate_key_id,
    kind_of,
    may_collide,
    partition_of,
    partition_under,
    readable_system_ids,
    system_key_id,
)
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
        ("a\udfff", "lone surrogates"),
        (None, "must be a str, not NoneType"),
        (7, "must be a str, not int"),
        (b"x", "must be a str, not bytes"),
        ("x" * 248, "makes a key id of 256 characters"),
    ],
)
def test_a_partition_that_no_database_can_keep_apart_is_refused(partition: Any, message: str) -> None:
    with pytest.raises(EncryptionError, match=message):
        Partition(partition, "s", "p")


def test_the_ids_that_are_read_begin_with_the_own_and_are_there_once() -> None:
    assert Partition("p", "s", "d").readable_ids == ("_IK_p_s_d",)
    assert Partition("p", "s", "d", "eu").readable_ids == ("_IK_p_s_d_eu", "_IK_p_s_d")
    assert Partition("p", "s", "d", "", ("eu",)).readable_ids == ("_IK_p_s_d", "_IK_p_s_d_eu")
    assert Partition("p", "s", "d", "eu", ("us", "eu", "us", "eu-2")).readable_ids == (
        "_IK_p_s_d_eu",
        "_IK_p_s_d",
        "_IK_p_s_d_us",
        "_IK_p_s_d_eu-2",
    )


@pytest.mark.parametrize(
    ("service", "product", "suffix", "others", "read"),
    [
        ("a", "a", "a", (), ("_SK_a_a_a",)),
        ("a", "a", "", ("a", "b"), ("_SK_a_a", "_SK_a_a_b")),
        ("s", "d", "eu", ("x_s_d_eu", "x_s_d", "s_d"), ("_SK_s_d_eu", "_SK_s_d")),
        ("s", "d", "d", ("s",), ("_SK_s_d_d", "_SK_s_d", "_SK_s_d_s")),
    ],
)
def test_no_two_partitions_have_one_id_among_those_that_are_read(
    service: str, product: str, suffix: str, others: tuple[str, ...], read: tuple[str, ...]
) -> None:
    assert readable_system_ids(service, product, suffix, others) == read


@pytest.mark.parametrize(
    ("first", "second", "may"),
    [
        ("_SK_app_pay_eu", "_SK_pay_eu", True),
        ("_SK_a_b_prod", "_SK_b_prod", True),
        ("_SK_pay_eu", "_SK_pay_eu", True),
        ("_SK_app_pay", "_SK_app_pay_eu", False),
        ("_SK_xpay_eu", "_SK_pay_eu", False),
        ("_SK_pay_eu", "_SK_PAY_EU", False),
    ],
)
def test_ids_may_collide_where_one_tail_ends_in_the_other(first: str, second: str, may: bool) -> None:
    assert may_collide(first, second) is may_collide(second, first) is may


@pytest.mark.parametrize(
    ("key_id", "parent_id", "partition"),
    [
        ("_IK_p_s_d_eu", "_SK_s_d_eu", "p"),
        ("_IK_p_s_d", "_SK_s_d", "p"),
        ("_IK_p_s_d_eu", "_SK_s_d", "p"),
        ("_IK_p_s_d", "_SK_s_d_eu", "p"),
        ("_IK_p_s_d_us", "_SK_s_d_eu", None),
        ("_IK_p_s_d_eu", "_SK_s_d_us", None),
        ("_IK_p_s_d_eu", "_SK_d_eu", None),
        ("_IK__s_d_eu", "_SK_s_d_eu", None),
        ("_SK_s_d_eu", "_SK_s_d_eu", None),
        ("", "_SK_s_d_eu", None),
    ],
)
def test_a_partition_is_found_under_the_system_keys_that_are_read(
    key_id: str, parent_id: str, partition: str | None
) -> None:
    assert partition_under(("_SK_s_d_eu", "_SK_s_d"), key_id, parent_id) == partition


@pytest.mark.parametrize(
    ("key_id", "suffix"),
    [
        ("_IK_p_s_d_us-west-2", "us-west-2"),
        ("_IK_p_s_d_a_b", "a_b"),
        ("_IK_p_s_d_eu", ""),
        ("_IK_p_s_d", ""),
        ("_IK_p_s_d_", ""),
        ("_IK_p_s_d_ä", ""),
        ("_IK_p_s_d2_us", ""),
        ("_IK_q_s_d_us", ""),
    ],
)
def test_a_suffix_that_is_not_read_is_named(key_id: str, suffix: str) -> None:
    assert Partition("p", "s", "d", "eu").unread_suffix(key_id) == suffix


def test_a_suffix_to_read_that_other_sdks_cant_read_is_refused() -> None:
    with pytest.raises(EncryptionError, match=r"^key suffix 'a b' must consist of letters"):
        Partition("p", "s", "d", "eu", ("us", "a b"))


def test_a_partition_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        Partition("p", "s", "p").partition_id = "q"  # type: ignore[misc]


def test_the_longest_partition_fits() -> None:
    assert len(Partition("x" * 247, "s", "p").intermediate_key_id) == 255


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", 'a"', "a\n", None, 5])
@pytest.mark.parametrize("place", ["service", "product"])
def test_names_that_other_sdks_cant_read_are_refused(name: Any, place: str) -> None:
    with pytest.raises(EncryptionError, match=f"^{place}"):
        Partition("p", **({"service": "s", "product": "p"} | {place: name}))


@pytest.mark.parametrize("name", ["service", "product", "key suffix"])
def test_a_name_that_other_sdks_cant_read_is_named(name: str) -> None:
    names = {"service": "s", "product": "p", "suffix": ""} | {name.removeprefix("key "): "a b"}
    with pytest.raises(EncryptionError, match=f"^{name} 'a b' must consist of letters"):
        Partition("p", **names)


@pytest.mark.parametrize(
    ("key_id", "kind"),
    [
        ("_SK_svc_prod", KeyKind.SYSTEM),
        ("_IK_p_svc_prod", KeyKind.INTERMEDIATE),
        ("__asherah_internal_config_drift_guard_v1__:x", None),
        ("SK_svc_prod", None),
        ("x_IK_p_svc_prod", None),
        ("", None),
    ],
)
def test_an_id_tells_what_kind_of_key_it_names(key_id: str, kind: KeyKind | None) -> None:
    assert kind_of(key_id) is kind


def test_a_kind_has_a_name_and_a_prefix() -> None:
    assert [(kind.value, kind.prefix) for kind in KeyKind] == [("system", "_SK_"), ("intermediate", "_IK_")]


def test_all_intermediate_keys_under_a_system_key_end_the_same() -> None:
    assert intermediate_id_tail("_SK_svc_prod_us-west-2") == "_svc_prod_us-west-2"
    assert intermediate_key_id("p", "_SK_svc_prod") == "_IK_p_svc_prod"


@pytest.mark.parametrize("partition", ["p", "tenant-7", "a_b", "_", "_IK_", "_svc_prod", "x_svc_prod", "王"])
@pytest.mark.parametrize("suffix", ["", "us-west-2"])
def test_an_id_gives_its_partition_back(partition: str, suffix: str) -> None:
    key_id = Partition(partition, "svc", "prod", suffix).intermediate_key_id
    assert partition_of(key_id, system_key_id("svc", "prod", suffix)) == partition


@pytest.mark.parametrize(
    "key_id",
    [
        "_IK__svc_prod",
        "_IK_p_svc_other",
        "_IK_p",
        "p_svc_prod",
        "_SK_svc_prod",
        "_IK_svc_prod",
        "_IK_p_svc_prod_",
        "",
        "p",
    ],
)
def test_an_id_of_another_service_or_kind_gives_none(key_id: str) -> None:
    assert partition_of(key_id, "_SK_svc_prod") is None


def test_one_id_may_be_two_partitions_of_two_services() -> None:
    assert partition_of("_IK_p_a_b_prod", "_SK_a_b_prod") == "p"
    assert partition_of("_IK_p_a_b_prod", "_SK_b_prod") == "p_a"
