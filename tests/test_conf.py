"""``settings.ASHERAH``: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.debug import SafeExceptionReporterFilter
from pytest_django import Settings as DjangoSettings

from django_asherah import conf, engine
from django_asherah.conf import find_problems, get_settings

WEST = "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
EAST = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
KEY = "0123456789abcdef" * 4
STATIC: dict[str, Any] = {"SERVICE": "clinic", "PRODUCT": "records", "KMS": "static", "KMS_OPTIONS": {"key": KEY}}
AWS: dict[str, Any] = {
    "SERVICE": "clinic",
    "PRODUCT": "records",
    "REGIONS": {"us-west-2": WEST, "us-east-1": EAST},
    "PREFERRED_REGION": "us-west-2",
}


def problems(settings: DjangoSettings, given: Any) -> list[tuple[str, str]]:
    """Return id and text (message and hint) of every problem that is found."""
    settings.ASHERAH = given
    return [(problem.id, f"{problem.message} {problem.hint}") for problem in find_problems()]


def test_the_least_that_is_needed_gets_the_documented_defaults(settings: DjangoSettings) -> None:
    settings.ASHERAH = AWS

    assert get_settings() == conf.Settings(
        service="clinic",
        product="records",
        regions={"us-west-2": WEST, "us-east-1": EAST},
        preferred_region="us-west-2",
        kms="aws",
        kms_options={},
        metastore="database",
        metastore_options={},
        database="default",
        partition="default",
        partition_guard="",
        key_suffix="",
        expire_key_after=timedelta(days=90),
        revoke_check_interval=timedelta(minutes=60),
        key_cache_size=1000,
    )


@pytest.mark.parametrize(
    "given",
    [
        AWS,
        STATIC,
        {**AWS, "KMS_OPTIONS": {"connect_timeout": 0.5, "read_timeout": 1, "max_attempts": 3, "session": object()}},
        {**AWS, "KMS_OPTIONS": {"endpoint_urls": {"us-east-1": "https://vpce-1.kms.us-east-1.vpce.amazonaws.com"}}},
        {**AWS, "REGIONS": {"us-gov-west-1": WEST.replace("aws:kms:us-west-2", "aws-us-gov:kms:us-gov-west-1")}}
        | {"PREFERRED_REGION": "us-gov-west-1"},
        {**AWS, "REGIONS": {"us-west-2": WEST.replace("key/1234abcd", "key/mrk-1234abcd")}},
        {**STATIC, "KMS": "some.kms.Class", "KMS_OPTIONS": {"whatever": 1}},
        {**STATIC, "METASTORE": "some.metastore.Class", "METASTORE_OPTIONS": {"table": "keys"}},
        {**STATIC, "METASTORE": "memory", "DATABASE": "nowhere"},
        {**STATIC, "PARTITION": "Zoë's 日本 🗝", "KEY_SUFFIX": "us-west-2", "DATABASE": "other"},
        {**STATIC, "EXPIRE_KEY_AFTER": timedelta(seconds=1), "REVOKE_CHECK_INTERVAL": timedelta.max},
        {**STATIC, "KEY_CACHE_SIZE": 1},
        {**STATIC, "PARTITION_GUARD": "clinic.tenants.partitions_of"},
        {**STATIC, "READ_SUFFIXES": []},
        {**STATIC, "READ_SUFFIXES": ("us-west-2", "eu-west-1")},
        {**STATIC, "KEY_SUFFIX": "eu-west-1", "READ_SUFFIXES": ["us-west-2", "eu-west-1"]},
    ],
    ids=range(16),
)
def test_what_is_right_is_accepted(settings: DjangoSettings, given: dict[str, Any]) -> None:
    assert problems(settings, given) == []


WRONG: dict[str, tuple[Any, str, list[str]]] = {
    "no dict": (None, "asherah.E001", ["settings.ASHERAH is missing or not a dict", "SERVICE and PRODUCT"]),
    "a list": ([("SERVICE", "x")], "asherah.E001", ["missing or not a dict"]),
    "a misspelt setting": (
        {**STATIC, "EXPIRE_KEYS_AFTER": 1},
        "asherah.E002",
        ["settings.ASHERAH has no setting 'EXPIRE_KEYS_AFTER'", "Did you mean 'EXPIRE_KEY_AFTER'?"],
    ),
    "a setting in lower case": (
        {**STATIC, "partition": "a"},
        "asherah.E002",
        ["no setting 'partition'", "Did you mean 'PARTITION'?"],
    ),
    "a setting like no other": (
        {**STATIC, "XYZZY": 1},
        "asherah.E002",
        ["no setting 'XYZZY'", "Known are: SERVICE, PRODUCT, REGIONS, PREFERRED_REGION, KMS, "],
    ),
    "a setting that is no text": ({**STATIC, 7: 1}, "asherah.E002", ["no setting 7"]),
    "no service": ({**STATIC, "SERVICE": ""}, "asherah.E003", ["ASHERAH['SERVICE'] is not set", "choose it once"]),
    "no product": ({**STATIC, "PRODUCT": None}, "asherah.E003", ["ASHERAH['PRODUCT'] is not set"]),
    "a service with a space": (
        {**STATIC, "SERVICE": "the clinic"},
        "asherah.E004",
        ["ASHERAH['SERVICE'] is 'the clinic'", "Use ASCII letters, digits, '.', '_' and '-'"],
    ),
    "a product with an umlaut": ({**STATIC, "PRODUCT": "übung"}, "asherah.E004", ["ASHERAH['PRODUCT'] is 'übung'"]),
    "a service with a line end": ({**STATIC, "SERVICE": "clinic\n"}, "asherah.E004", [r"'clinic\n'"]),
    "a service that is a number": ({**STATIC, "SERVICE": 7}, "asherah.E004", ["ASHERAH['SERVICE'] is 7"]),
    "a suffix with a slash": ({**STATIC, "KEY_SUFFIX": "a/b"}, "asherah.E004", ["ASHERAH['KEY_SUFFIX'] is 'a/b'"]),
    "suffixes in a text": (
        {**STATIC, "READ_SUFFIXES": "us-west-2"},
        "asherah.E004",
        ["ASHERAH['READ_SUFFIXES'] is 'us-west-2'", "Give a list of the other regions' suffixes"],
    ),
    "suffixes of None": ({**STATIC, "READ_SUFFIXES": None}, "asherah.E004", ["ASHERAH['READ_SUFFIXES'] is None"]),
    "suffixes in a set": ({**STATIC, "READ_SUFFIXES": {"eu"}}, "asherah.E004", ["['READ_SUFFIXES'] is {'eu'}"]),
    "an empty suffix to read": ({**STATIC, "READ_SUFFIXES": [""]}, "asherah.E004", ["READ_SUFFIXES'] is ['']"]),
    "a number as suffix to read": ({**STATIC, "READ_SUFFIXES": ["a", 7]}, "asherah.E004", ["is ['a', 7]"]),
    "a suffix to read with a slash": ({**STATIC, "READ_SUFFIXES": ["a/b"]}, "asherah.E004", ["is ['a/b']"]),
    "an empty partition": (
        {**STATIC, "PARTITION": ""},
        "asherah.E005",
        ["ASHERAH['PARTITION']: a partition must not be empty", "leave it out for 'default'"],
    ),
    "a partition of None": ({**STATIC, "PARTITION": None}, "asherah.E005", ["must be a str, not NoneType"]),
    "a partition with a NUL": ({**STATIC, "PARTITION": "a\0"}, "asherah.E005", ["must not hold NUL"]),
    "a partition too long with its service": (
        {**STATIC, "PARTITION": "p" * 237},
        "asherah.E005",
        ["makes a key id of 256 characters", "holds 255"],
    ),
    "options that are no dict": ({**STATIC, "KMS_OPTIONS": "x"}, "asherah.E006", ["['KMS_OPTIONS'] is not a dict"]),
    "a misspelt AWS option": (
        {**AWS, "KMS_OPTIONS": {"conect_timeout": 1}},
        "asherah.E006",
        ["ASHERAH['KMS_OPTIONS'] has no setting 'conect_timeout'", "Did you mean 'connect_timeout'?"],
    ),
    "a static option of AWS": (
        {**STATIC, "KMS_OPTIONS": {"key": KEY, "max_attempts": 1}},
        "asherah.E006",
        ["no setting 'max_attempts'", "Known are: key."],
    ),
    "a timeout of zero": (
        {**AWS, "KMS_OPTIONS": {"read_timeout": 0}},
        "asherah.E006",
        ["ASHERAH['KMS_OPTIONS']['read_timeout'] is 0", "seconds, above 0"],
    ),
    "a timeout without end": ({**AWS, "KMS_OPTIONS": {"read_timeout": math.inf}}, "asherah.E006", ["is inf"]),
    "a timeout that is no number": ({**AWS, "KMS_OPTIONS": {"read_timeout": math.nan}}, "asherah.E006", ["is nan"]),
    "a timeout of True": ({**AWS, "KMS_OPTIONS": {"connect_timeout": True}}, "asherah.E006", ["is True"]),
    "half an attempt": (
        {**AWS, "KMS_OPTIONS": {"max_attempts": 1.5}},
        "asherah.E006",
        ["ASHERAH['KMS_OPTIONS']['max_attempts'] is 1.5", "whole number above 0"],
    ),
    "endpoints that are no dict": (
        {**AWS, "KMS_OPTIONS": {"endpoint_urls": "http://localhost"}},
        "asherah.E006",
        ["ASHERAH['KMS_OPTIONS']['endpoint_urls'] is not a dict"],
    ),
    "an endpoint of an unknown region": (
        {**AWS, "KMS_OPTIONS": {"endpoint_urls": {"us-west-1": "https://x"}}},
        "asherah.E006",
        ["['endpoint_urls'] has no setting 'us-west-1'", "Did you mean 'us-west-2'?"],
    ),
    "an endpoint that is no URL": (
        {**AWS, "KMS_OPTIONS": {"endpoint_urls": {"us-west-2": "localhost:5000"}}},
        "asherah.E006",
        ["['endpoint_urls']['us-west-2'] is not a URL", "https://"],
    ),
    "an unknown KMS": (
        {**STATIC, "KMS": "gcp"},
        "asherah.E007",
        ["ASHERAH['KMS'] is 'gcp'", "'aws', 'static', or give the dotted path"],
    ),
    "a KMS that is a class": ({**STATIC, "KMS": dict}, "asherah.E007", ["ASHERAH['KMS'] is <class 'dict'>"]),
    "a KMS whose path is a file's": ({**STATIC, "KMS": "./kms.py"}, "asherah.E007", ["ASHERAH['KMS'] is './kms.py'"]),
    "a KMS whose path is relative": ({**STATIC, "KMS": ".kms.Own"}, "asherah.E007", ["or give the dotted path"]),
    "an unknown metastore": (
        {**STATIC, "METASTORE": "redis"},
        "asherah.E008",
        ["ASHERAH['METASTORE'] is 'redis'", "'database', 'dynamodb', 'memory'", "or give the dotted path"],
    ),
    "a metastore that can't be hashed": ({**STATIC, "METASTORE": []}, "asherah.E008", ["ASHERAH['METASTORE'] is []"]),
    "an unknown database": (
        {**STATIC, "DATABASE": "keys"},
        "asherah.E009",
        ["ASHERAH['DATABASE'] is 'keys', which is not in settings.DATABASES", "default, other"],
    ),
    "a database that can't be hashed": ({**STATIC, "DATABASE": []}, "asherah.E009", ["ASHERAH['DATABASE'] is []"]),
    "no regions": (
        {"SERVICE": "clinic", "PRODUCT": "records"},
        "asherah.E010",
        ["ASHERAH['REGIONS'] is empty or not a dict", "Map each region to the ARN"],
    ),
    "empty regions": ({**AWS, "REGIONS": {}}, "asherah.E010", ["ASHERAH['REGIONS'] is empty"]),
    "regions in a list": ({**AWS, "REGIONS": [WEST]}, "asherah.E010", ["not a dict"]),
    "an ARN of S3": (
        {**AWS, "REGIONS": {"us-west-2": "arn:aws:s3:::bucket"}},
        "asherah.E011",
        ["ASHERAH['REGIONS']['us-west-2'] is 'arn:aws:s3:::bucket', which is not the ARN of a KMS key"],
    ),
    "a bare key id": ({**AWS, "REGIONS": {"us-west-2": "1234abcd"}}, "asherah.E011", ["looks like arn:aws:kms:"]),
    "an ARN with a line end": ({**AWS, "REGIONS": {"us-west-2": f"{WEST}\n"}}, "asherah.E011", ["not the ARN"]),
    "an ARN of None": ({**AWS, "REGIONS": {"us-west-2": None}}, "asherah.E011", ["is None"]),
    "an alias": (
        {**AWS, "REGIONS": {"us-west-2": WEST.replace("key/1234abcd", "alias/clinic_1")}},
        "asherah.E011",
        [
            f"ASHERAH['REGIONS']['us-west-2'] is '{WEST.replace('key/1234abcd', 'alias/clinic_1')}', an alias",
            f"aws kms describe-key --region us-west-2 --key-id {WEST.replace('key/1234abcd', 'alias/clinic_1')} --query",
            " --query KeyMetadata.Arn --output text",
            "open as before; asherah_rewrap stores the key's own ARN",
        ],
    ),
    "an ARN of another region": (
        {**AWS, "REGIONS": {"us-west-2": EAST}},
        "asherah.E012",
        ["ASHERAH['REGIONS']['us-west-2'] is the ARN of a key in 'us-east-1'"],
    ),
    "a preferred region that is not there": (
        {**AWS, "PREFERRED_REGION": "eu-west-1"},
        "asherah.E013",
        ["ASHERAH['PREFERRED_REGION'] is 'eu-west-1'", "Choose one of: us-west-2, us-east-1"],
    ),
    "no preferred region": (
        {name: value for name, value in AWS.items() if name != "PREFERRED_REGION"},
        "asherah.E013",
        ["ASHERAH['PREFERRED_REGION'] is None"],
    ),
    "a preferred region that can't be hashed": ({**AWS, "PREFERRED_REGION": []}, "asherah.E013", ["is []"]),
    "no static key": ({**STATIC, "KMS_OPTIONS": {}}, "asherah.E014", ["is not a key of 32 bytes", "64 hex digits"]),
    "a static key of bytes": ({**STATIC, "KMS_OPTIONS": {"key": b"x" * 32}}, "asherah.E014", ["not a key of 32 bytes"]),
    "a life of no length": (
        {**STATIC, "EXPIRE_KEY_AFTER": timedelta(0)},
        "asherah.E015",
        ["ASHERAH['EXPIRE_KEY_AFTER'] is datetime.timedelta(0)", "a timedelta of a second or more"],
    ),
    "days as a number": ({**STATIC, "EXPIRE_KEY_AFTER": 90}, "asherah.E015", ["ASHERAH['EXPIRE_KEY_AFTER'] is 90"]),
    "a negative interval": (
        {**STATIC, "REVOKE_CHECK_INTERVAL": timedelta(hours=-1)},
        "asherah.E015",
        ["ASHERAH['REVOKE_CHECK_INTERVAL'] is"],
    ),
    "a cache for no key": (
        {**STATIC, "KEY_CACHE_SIZE": 0},
        "asherah.E015",
        ["ASHERAH['KEY_CACHE_SIZE'] is 0", "whole number above 0"],
    ),
    "a cache for True keys": ({**STATIC, "KEY_CACHE_SIZE": True}, "asherah.E015", ["is True"]),
    "a guard that is a function": (
        {**STATIC, "PARTITION_GUARD": len},
        "asherah.E017",
        ["ASHERAH['PARTITION_GUARD'] is"],
    ),
    "a guard without a module": (
        {**STATIC, "PARTITION_GUARD": "partitions_of"},
        "asherah.E017",
        ["ASHERAH['PARTITION_GUARD'] is 'partitions_of'", "the dotted path of a function that takes a request"],
    ),
    "a guard of None": ({**STATIC, "PARTITION_GUARD": None}, "asherah.E017", ["is None"]),
    "metastore options that are no dict": (
        {**STATIC, "METASTORE_OPTIONS": 1},
        "asherah.E016",
        ["ASHERAH['METASTORE_OPTIONS'] is not a dict"],
    ),
    "an option of the database metastore": (
        {**STATIC, "METASTORE_OPTIONS": {"table": "keys"}},
        "asherah.E016",
        ["ASHERAH['METASTORE_OPTIONS'] has no setting 'table'", "Known are: none."],
    ),
}


@pytest.mark.parametrize(("given", "id", "fragments"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found_once_and_told(
    settings: DjangoSettings, given: Any, id: str, fragments: list[str]
) -> None:
    [(found, text)] = problems(settings, given)

    assert found == id
    for fragment in fragments:
        assert fragment in text


@pytest.mark.parametrize(("given", "id", "fragments"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_at_use(settings: DjangoSettings, given: Any, id: str, fragments: list[str]) -> None:
    settings.ASHERAH = given

    with pytest.raises(ImproperlyConfigured) as caught:
        engine.get_session()

    assert f"({id})" in str(caught.value)
    assert fragments[0] in str(caught.value)


def test_every_problem_has_a_case_here() -> None:
    assert {id for _, id, _ in WRONG.values()} == {f"asherah.E{number:03}" for number in range(1, 18)}


def test_a_missing_setting_is_found(settings: DjangoSettings) -> None:
    del settings.ASHERAH

    assert [problem.id for problem in find_problems()] == ["asherah.E001"]


def test_all_problems_are_found_at_once(settings: DjangoSettings) -> None:
    given = {"SERVICE": "a b", "KMS": "static", "KEY_CACHE_SIZE": 0, "DATABASE": "keys", "NOPE": 1}

    assert [id for id, _ in problems(settings, given)] == [
        "asherah.E002",
        "asherah.E003",
        "asherah.E004",
        "asherah.E014",
        "asherah.E009",
        "asherah.E015",
    ]


@pytest.mark.parametrize("key", [KEY[:-1], f"{KEY}0", "g" * 64, f" {KEY[2:]} ", KEY.encode()])
def test_a_static_key_that_is_wrong_is_not_shown(settings: DjangoSettings, key: Any) -> None:
    settings.ASHERAH = {**STATIC, "KMS_OPTIONS": {"key": key}}

    with pytest.raises(ImproperlyConfigured) as caught:
        get_settings()

    assert str(key)[10:30] not in str(caught.value)


def test_the_static_key_is_in_no_repr_and_on_no_debug_page(settings: DjangoSettings) -> None:
    settings.ASHERAH = STATIC

    shown = [get_settings(), engine.get_factory(), engine.get_factory().kms, engine.get_session()]
    assert KEY not in repr(shown)
    assert KEY not in repr(SafeExceptionReporterFilter().get_safe_settings())


def test_settings_are_read_on_access() -> None:
    with override_settings(ASHERAH={**STATIC, "PARTITION": "one"}):
        assert get_settings().partition == "one"
        assert engine.get_session().partition.intermediate_key_id == "_IK_one_clinic_records"
    with override_settings(ASHERAH={**STATIC, "PARTITION": "two"}):
        assert engine.get_session().partition.intermediate_key_id == "_IK_two_clinic_records"

    assert engine.get_session().partition.intermediate_key_id == "_IK_default_suite_tests"
