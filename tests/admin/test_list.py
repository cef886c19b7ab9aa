"""The list of keys: what it shows, what it filters by, and what it costs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_asherah.lifecycle import KeyState, list_keys
from django_asherah.models import EncryptionKey
from tests.admin.conftest import ARNS, DAY, LIST, SK_ID, Maker, page_of, pk_of, regional
from tests.databases import VENDOR, execute
from tests.memory import peak_of

ODD = ["o'brien", '"><script>alert(1)</script>', "a/b?c=d&e#f", "Zoë 東京", "{{ key }}", "100%_", "..", "a\nb"]


@pytest.fixture(autouse=True)
def _regions(settings: Any) -> None:
    settings.ASHERAH = regional()
    settings.TIME_ZONE = "UTC"


def page(client: Client, query: str = "") -> str:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return response.content.decode()


def rows(client: Client, query: str = "") -> list[list[str]]:
    """Return the text of each cell of each row, the checkbox left out."""
    body = re.search(r"<tbody>(.*?)</tbody>", page(client, query), re.DOTALL)
    if body is None:
        return []
    return [[_text(cell) for cell in re.split(r"<t[dh]\b", row)[2:]] for row in re.split(r"<tr>", body[1])[1:]]


def _text(cell: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", "<" + cell)).split())


def names(client: Client, query: str) -> list[str]:
    return sorted(row[0] for row in rows(client, query))


def moment(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M}"


class TestWhatItShows:
    def test_a_key_of_each_kind(self, make: Maker, staff: Client) -> None:
        system = make.system(3)
        below = make.intermediate(system, "alice", 2)

        assert rows(staff) == [
            [
                "_IK_alice_suite_tests",
                "intermediate",
                "alice",
                "current",
                moment(below.created),
                moment(below.created + 90 * DAY),
                moment(system.created),
            ],
            [
                SK_ID,
                "system",
                "—",
                "current",
                moment(system.created),
                moment(system.created + 90 * DAY),
                "us-west-2 preferred us-east-1",
            ],
        ]
        assert f'href="{page_of(system)}" title="{SK_ID}"' in page(staff)

    def test_every_state(self, make: Maker, staff: Client) -> None:
        make.system(91)
        make.system(10, revoked=True)
        make.system(5)
        system = make.system(1)
        make.intermediate(system, "bob", 1, revoked=True)

        states = {(row[0], row[3]) for row in rows(staff)}

        assert states == {
            (SK_ID, "expired"),
            (SK_ID, "revoked"),
            (SK_ID, "superseded"),
            (SK_ID, "current"),
            ("_IK_bob_suite_tests", "revoked"),
        }

    def test_regions_that_are_missing_or_other(self, make: Maker, staff: Client, settings: Any) -> None:
        make.system(1)
        settings.ASHERAH = regional({"eu-west-1": "arn:eu", "us-east-1": "arn:new"})

        [row] = rows(staff)

        assert row[-1] == "eu-west-1 missing us-east-1 another key us-west-2 not configured"

    def test_a_missing_parent(self, make: Maker, staff: Client) -> None:
        system = make.system(3)
        make.intermediate(system, days=1)
        EncryptionKey.objects.filter(key_id=SK_ID).delete()

        [row] = rows(staff)

        assert row[6] == f"{moment(system.created)} missing"

    def test_a_parent_that_a_session_of_another_time_zone_has_stored(self, make: Maker, staff: Client) -> None:
        system = make.system(3)
        make.intermediate(system, days=1)
        parents = EncryptionKey.objects.filter(key_id=SK_ID)
        parents.update(created=parents.get().created + timedelta(hours=5, minutes=45))

        assert f"{moment(system.created)}" in rows(staff)[0][6]
        assert "missing" not in rows(staff)[0][6]

    def test_another_services_keys(self, make: Maker, staff: Client) -> None:
        system = make.system(1, key_id="_SK_other_product")
        make.intermediate(system, key_id="_IK_alice_other_product")

        assert [row[:4] for row in rows(staff)] == [
            ["_IK_alice_other_product", "intermediate", "another service", "current"],
            ["_SK_other_product", "system", "another service", "current"],
        ]

    def test_rows_that_are_no_keys_are_left_out(self, make: Maker, staff: Client) -> None:
        make.row("__asherah_internal_config_drift_guard_v1__:abc", {"a": 1})
        make.row("_sk_suite_tests", {"a": 1})
        make.row("", {})

        assert rows(staff) == []

    @pytest.mark.parametrize("record", [{"a": 1}, [], "text", {"Created": "x", "Key": 1}, {"Created": -1}])
    def test_a_row_that_cant_be_read_harms_only_itself(self, make: Maker, staff: Client, record: Any) -> None:
        make.system(1)
        make.row("_SK_broken", record)
        make.row("_IK_broken_suite_tests", record)

        assert [row[:4] for row in rows(staff)] == [
            ["_IK_broken_suite_tests", "—", "—", "unreadable"],
            ["_SK_broken", "—", "—", "unreadable"],
            [SK_ID, "system", "—", "current"],
        ]
        for state in KeyState:
            page(staff, f"?state={state}")
        page(staff, "?region=us-west-2")

    @pytest.mark.skipif(VENDOR != "sqlite", reason="PostgreSQL and MariaDB let no broken JSON in")
    @pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"", b"A" * 100_000])
    def test_a_row_that_is_no_json_harms_only_itself(self, make: Maker, staff: Client, text: bytes) -> None:
        make.system(1)
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA ignore_check_constraints = ON")
        execute(
            "default",
            "INSERT INTO encryption_key (id, created, key_record) VALUES ('_SK_broken', '2026-01-01 00:00:00', %s)",
            [text],
        )

        for query in ["", *(f"?state={state}" for state in KeyState), "?region=us-west-2"]:
            page(staff, query)
        assert [row[:4] for row in rows(staff)][1] == ["_SK_broken", "—", "—", "unreadable"]

    @pytest.mark.parametrize("partition", ODD)
    def test_odd_characters_are_escaped(self, make: Maker, staff: Client, partition: str) -> None:
        system = make.system(1)
        meta = make.intermediate(system, partition)

        assert rows(staff)[0][2] == " ".join(partition.split())
        assert "<script>alert" not in page(staff)
        for url in [page_of(meta), page_of(system)]:
            text = staff.get(url).content.decode()
            assert "<script>alert" not in text
            assert " ".join(partition.split()) in " ".join(unescape(text).split())

    def test_no_key_material(self, make: Maker, staff: Client) -> None:
        system = make.system(1)
        meta = make.intermediate(system)

        for url in [LIST, page_of(system), page_of(meta), f"{LIST}{pk_of(meta)}/history/"]:
            make.assert_none_shown(staff.get(url).content.decode())

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("use_tz", [True, False])
    @pytest.mark.parametrize("zone", ["Asia/Kolkata", "UTC"])
    def test_any_time_zone(self, make: Maker, staff: Client, settings: Any, use_tz: bool, zone: str) -> None:
        settings.USE_TZ, settings.TIME_ZONE = use_tz, zone
        system = make.system(2)
        make.system(1)
        make.intermediate(system, "alice", 2)

        assert [row[3] for row in rows(staff)] == ["current", "current", "superseded"]
        assert not any("missing" in row[6] for row in rows(staff))
        assert names(staff, "?state=current") == ["_IK_alice_suite_tests", SK_ID]
        assert names(staff, "?state=superseded") == [SK_ID]


class TestFilters:
    @pytest.fixture(autouse=True)
    def hierarchy(self, make: Maker, settings: Any) -> None:
        old = make.system(200)
        make.intermediate(old, "alice", 199)
        settings.ASHERAH = regional({"us-west-2": ARNS["us-west-2"]})
        middle = make.system(80)
        make.intermediate(middle, "alice", 70)
        make.intermediate(middle, "bob", 60, revoked=True)
        settings.ASHERAH = regional()
        new = make.system(10)
        make.intermediate(new, "alice", 9)
        make.intermediate(new, "Revoked true", 8)

    def test_kind(self, staff: Client) -> None:
        assert names(staff, "?kind=system") == [SK_ID] * 3
        assert len(names(staff, "?kind=intermediate")) == 5
        assert len(names(staff, "?kind=nonsense")) == 8

    @pytest.mark.parametrize("state", KeyState)
    def test_state_says_the_same_as_the_commands(self, staff: Client, state: KeyState) -> None:
        expected = sorted((key.meta.key_id, moment(key.meta.created)) for key in list_keys() if key.state is state)

        found = rows(staff, f"?state={state}")

        assert expected
        assert sorted((row[0], row[4]) for row in found) == expected
        assert {row[3] for row in found} == {state.value}

    @pytest.mark.parametrize(("days", "state"), [(89.999, "current"), (90.001, "expired")])
    def test_the_edge_of_expiry(self, make: Maker, staff: Client, days: float, state: str) -> None:
        make.intermediate(make.system(days), "edge", days)

        assert [row[3] for row in rows(staff, f"?state={state}&q=edge")] == [state]

    def test_region_of_system_keys(self, staff: Client) -> None:
        assert len(names(staff, "?region=us-west-2")) == 3
        assert names(staff, "?region=us-east-1") == [SK_ID] * 2
        assert names(staff, f"?region={quote('without us-east-1')}") == [SK_ID]
        assert names(staff, "?region=nowhere") == []
        assert "without us-east-1</a>" in page(staff)

    def test_search_by_key_id(self, staff: Client) -> None:
        assert names(staff, "?q=bob") == ["_IK_bob_suite_tests"]
        assert names(staff, "?q=_SK_") == [SK_ID] * 3
        assert names(staff, "?q=nobody") == []
        assert names(staff, f"?q={quote('Revoked true')}") == ["_IK_Revoked true_suite_tests"]
        assert names(staff, "?q=%25") == []
        assert names(staff, f"?q={quote(chr(0))}") is not None

    def test_sorting(self, staff: Client) -> None:
        ids = [row[0] for row in rows(staff, "?o=1")]

        assert ids == sorted(ids)

    @pytest.mark.parametrize(
        "query",
        ["key_record__Key__startswith=A", "key_record__icontains=A", "record_text__contains=A", "text__contains=A"],
    )
    def test_nobody_can_guess_at_records(self, staff: Client, query: str) -> None:
        assert staff.get(f"{LIST}?{query}").status_code == 400


class TestPages:
    def test_fifty_at_a_time_and_all_of_them(self, make: Maker, staff: Client) -> None:
        _many(make, 120)

        pages = [rows(staff, f"?p={number}") for number in (1, 2, 3)]

        assert [len(each) for each in pages] == [50, 50, 20]
        assert len({(row[0], row[4]) for each in pages for row in each}) == 120
        assert 'rel="next"' in page(staff)
        assert 'rel="prev"' not in page(staff)
        assert "?p=1" in page(staff, "?p=2")
        assert 'rel="next"' not in page(staff, "?p=3")

    def test_no_page_shows_everything(self, make: Maker, staff: Client) -> None:
        _many(make, 60)

        assert len(rows(staff, "?all=")) == 50

    @pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999", "x", "4"])
    def test_pages_that_are_not_there(self, make: Maker, staff: Client, number: str) -> None:
        response = staff.get(f"{LIST}?p={number}", follow=True)

        assert response.status_code == 200

    def test_the_number_of_queries_does_not_grow_and_nothing_is_counted(
        self, make: Maker, staff: Client, settings: Any
    ) -> None:
        few = _queries(make, staff, 5)
        many = _queries(make, staff, 3000)

        assert [len(each) for each in few] == [len(each) for each in many]
        assert max(len(each) for each in many) <= 10
        assert not [sql for each in many for sql in each if "COUNT(" in sql.upper()]

    @pytest.mark.slow
    @pytest.mark.memory
    def test_twenty_thousand_keys_take_no_more_memory_than_a_hundred(
        self, make: Maker, staff: Client, settings: Any
    ) -> None:
        _queries(make, staff, 100)  # What is loaded once counts for neither.
        few = _memory(make, staff, 100)
        many = _memory(make, staff, 20_000)

        growth = {url: round(most / few[url], 2) for url, most in many.items()}
        assert max(growth.values()) <= 1.2, growth


def _many(make: Maker, count: int) -> None:
    system = make.system(1)
    record = {"Created": make.now, "Key": "A" * 80, "ParentKeyMeta": {"KeyId": SK_ID, "Created": system.created}}
    EncryptionKey.objects.bulk_create(
        EncryptionKey(key_id=f"_IK_{number:06}_suite_tests", created=make.moment(0), key_record=record)
        for number in range(count - 1)
    )


def _pages(make: Maker, count: int) -> dict[str, str]:
    """Make so many keys; return the pages about them, with their addresses."""
    EncryptionKey.objects.all().delete()
    _many(make, count)
    system = EncryptionKey.objects.get(key_id=SK_ID)
    below = EncryptionKey.objects.filter(key_id__contains="000001").get()
    queries = ["state=current", "state=superseded", "state=expired", "state=revoked"]
    queries += ["kind=system", "region=us-west-2", "q=00"]
    return {
        "all": LIST,
        **{query: f"{LIST}?{query}" for query in queries},
        "a system key": f"{LIST}{system.pk}/change/",
        "an intermediate key": f"{LIST}{below.pk}/change/",
    }


def _queries(make: Maker, staff: Client, count: int) -> list[list[str]]:
    found = []
    for url in _pages(make, count).values():
        with CaptureQueriesContext(connection) as queries:
            assert staff.get(url).status_code == 200
        found.append([query["sql"] for query in queries])
    return found


def _memory(make: Maker, staff: Client, count: int) -> dict[str, int]:
    """Return the most memory (bytes) that each page takes to be made."""
    found = {}
    for name, url in _pages(make, count).items():
        response, found[name] = peak_of(partial(staff.get, url))
        assert response.status_code == 200
    return found
