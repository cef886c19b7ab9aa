"""Status: what is shown, what is counted, and what is a problem, with few keys and with many."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_asherah import engine, lifecycle
from django_asherah.metastores.sql import INSERT, created_literal
from django_asherah.models import EncryptionKey
from tests.lifecycle.conftest import Run
from tests.memory import peak_of

pytestmark = pytest.mark.django_db(transaction=True)

SK_ID = "_SK_suite_tests"
DAY = 24 * 3600
MANY = 100_000


def test_three_keys_read_as_a_table(run: Run) -> None:
    for partition in ("left", "right"):
        engine.get_session(partition).encrypt(b"")
    made = {key.partition: key for key in lifecycle.list_keys()}
    text, code = run.text("asherah_status")
    assert code == 0

    def moment(second: float) -> str:
        return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"

    system = made[None]
    created = moment(system.meta.created)
    expires = moment(system.meta.created + 90 * DAY)
    assert text.splitlines() == [
        f"current system key: {system.meta}",
        f"next expiry: {expires}",
        "partitions: 2",
        "keys: 2 intermediate current, 1 system current",
        "keys of others: 0",
        "other rows: 0",
        "",
        f"{'kind':12}  partition  {'created':19}  age  {'expires':19}  state    {'parent or regions':19}  problems",
        f"intermediate  left       {created}  0 d  {expires}  current  {created}",
        f"intermediate  right      {created}  0 d  {expires}  current  {created}",
        f"system                   {created}  0 d  {expires}  current",
    ]


def test_a_problem_is_one_on_every_page_and_behind_every_filter(run: Run, regional: Callable[..., None]) -> None:
    regional({"one": "arn-1"})
    engine.get_session("left").encrypt(b"")
    regional()
    for words in ((), ("--limit", "1"), ("--kind", "intermediate"), ("--offset", "9"), ("--partition", "left")):
        document = run("asherah_status", *words)
        assert document["code"] == 1
        assert [problem["reason"] for problem in document["problems"]] == ["not wrapped for two"]
    assert [item["key_id"] for item in run("asherah_status", "--problems")["items"]] == [SK_ID]


def test_of_very_many_problems_the_first_hundred_are_listed_and_all_are_counted(
    run: Run, regional: Callable[..., None]
) -> None:
    regional({"one": "arn-1"})
    engine.get_session().encrypt(b"")
    row = EncryptionKey.objects.get(key_id=SK_ID)
    EncryptionKey.objects.bulk_create(
        EncryptionKey(
            key_id=SK_ID,
            created=row.created - timedelta(minutes=number),
            key_record={**row.key_record, "Created": row.key_record["Created"] - 60 * number},
        )
        for number in range(1, 103)
    )
    regional()
    problems = run("asherah_status")["problems"]
    assert [problem["reason"] for problem in problems[:-1]] == ["not wrapped for two"] * 100
    assert problems[-1] == {"at": "keys", "reason": "3 more problems: see --problems"}


@pytest.mark.parametrize("words", [("--limit", "0"), ("--limit", "-1"), ("--offset", "-1"), ("--limit", "x")])
def test_pages_that_there_cant_be_are_a_usage_error(run: Run, words: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="is not a whole number above 0"):
        run("asherah_status", *words)


def make_keys(number: int) -> None:
    engine.get_session("one").encrypt(b"")
    (system,) = [key.meta for key in lifecycle.list_keys() if key.kind == "system"]
    record = json.dumps(
        {"Created": system.created, "Key": "A" * 80, "ParentKeyMeta": {"KeyId": SK_ID, "Created": system.created}}
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            INSERT,
            [(f"_IK_{n:06}_suite_tests", created_literal(connection, system.created), record) for n in range(number)],
        )


@pytest.mark.slow
@pytest.mark.memory
def test_100_000_keys_are_summed_up_and_paged_in_constant_memory(run: Run) -> None:
    make_keys(MANY)
    with CaptureQueriesContext(connection) as queries:
        document = run("asherah_status", "--offset", "99990", "--limit", "5")
    # One query a page of 1,000 rows, an empty one at the end, and none of them skips rows with OFFSET.
    assert len(queries) <= MANY // 1000 + 2
    assert not [query for query in queries if "OFFSET" in query["sql"]]
    assert document["summary"]["partitions"] == MANY + 1
    assert document["summary"]["keys"] == {"intermediate current": MANY + 1, "system current": 1}
    assert [item["partition"] for item in document["items"]] == [f"{number:06}" for number in range(99990, 99995)]

    # Tracing memory is slow: a fifth of the keys shows whether the others were read along with them.
    listed, peak = peak_of(lambda: sum(1 for _ in islice(lifecycle.list_keys(), MANY // 5)))
    assert listed == MANY // 5
    assert peak < 8_000_000

    with CaptureQueriesContext(connection) as queries:
        report = lifecycle.revoke("_IK_077777_suite_tests")
    assert (report.changed, report.partitions) == (True, ["077777"])
    assert len(queries) <= 5


def test_pages_and_filters_say_how_to_go_on(run: Run) -> None:
    make_keys(60)
    text, code = run.text("asherah_status")
    assert code == 0
    assert "(12 more: --offset 50)" in text
    text, _ = run.text("asherah_status", "--offset", "50")
    assert "more:" not in text
    assert [item["partition"] for item in run("asherah_status", "--partition", "000042")["items"]] == ["000042"]
    assert run("asherah_status", "--state", "revoked")["items"] == []
    assert len(run("asherah_status", "--kind", "intermediate", "--limit", "100")["items"]) == 61
