"""Rows that are no sound keys: every page shows them, or goes on beside them."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from django_asherah.envelope.records import MAX_CREATED
from django_asherah.models import EncryptionKey
from tests.admin.conftest import LIST, SK_ID, Maker, page_of, regional
from tests.databases import record
from tests.unsound import COLUMNS, COPIED, RECORDS, plant

IK_ID = "_IK_alice_suite_tests"
COPIED_AT = 1_798_761_600  # 2027-01-01T00:00:00Z
UNSOUND = [*((column, None) for column in COLUMNS), *((COPIED, text) for text in RECORDS)]


@pytest.fixture(autouse=True)
def _regions(settings: Any) -> None:
    settings.ASHERAH = regional()


@pytest.fixture(params=UNSOUND, ids=str)
def planted(request: pytest.FixtureRequest, make: Maker) -> list[str]:
    """Pages of an unsound row for the id of a system key and of an intermediate key, with sound ones beside them."""
    column, text = request.param
    make.intermediate(make.system(3), "alice", 2)
    sound = set(EncryptionKey.objects.values_list("pk", flat=True))
    plant("default", SK_ID, column, text or record(COPIED_AT - 77, 5))
    plant("default", IK_ID, column, text or record(COPIED_AT - 77, 5, SK_ID))
    added = EncryptionKey.objects.exclude(pk__in=sound).values_list("pk", flat=True)
    return [reverse("admin:django_asherah_encryptionkey_change", args=[pk]) for pk in added]


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    body = response.content.decode()
    assert "asherah-unavailable" not in body
    return body


def states(client: Client, query: str = "") -> list[str]:
    """Return the states that the list shows."""
    body = re.search(r"<tbody>(.*?)</tbody>", page(client, LIST + query), re.DOTALL)
    return sorted(re.findall(r"asherah-badge asherah-(\w+)", body[1])) if body else []


def test_the_list_shows_them_and_the_keys_beside_them(planted: list[str], staff: Client) -> None:
    assert states(staff) == ["current", "current", "unreadable", "unreadable"]
    for order in ("1", "-1", "5", "-5", "6", "-6"):
        assert states(staff, f"?o={order}") == ["current", "current", "unreadable", "unreadable"]


def test_a_filter_finds_the_keys_that_they_would_hide(planted: list[str], staff: Client) -> None:
    assert states(staff, "?state=current") == ["current", "current"]
    assert states(staff, "?state=superseded") == []
    assert states(staff, "?kind=system&state=current") == ["current"]
    assert states(staff, "?region=us-west-2") == ["current"]
    assert page(staff, LIST + "?created__year=2027")
    assert page(staff, LIST + "?created__month=1")
    assert page(staff, LIST + "?created__date=2027-01-01")


def test_the_overview_goes_on(planted: list[str], staff: Client) -> None:
    body = page(staff, LIST)
    assert "the next write makes one" not in body


def test_each_has_a_page_that_says_why(planted: list[str], make: Maker, staff: Client) -> None:
    assert len(planted) == 2
    for url in planted:
        assert re.search(
            "not an envelope key record|it is stored as created|is no time that a key can", page(staff, url)
        )
        assert page(staff, url.replace("change", "history"))


def test_the_pages_of_sound_keys_go_on(planted: list[str], staff: Client) -> None:
    pks = EncryptionKey.objects.values_list("pk", flat=True)
    urls = [reverse("admin:django_asherah_encryptionkey_change", args=[pk]) for pk in pks]
    sound = [url for url in urls if url not in planted]
    assert len(sound) == 2
    for url in sound:
        assert "asherah-current" in page(staff, url)


def test_actions_name_them(planted: list[str], staff: Client) -> None:
    chosen = list(EncryptionKey.objects.values_list("pk", flat=True))
    for action in ("verify_keys", "revoke_keys"):
        response = staff.post(LIST, {"action": action, "_selected_action": chosen}, follow=True)
        assert response.status_code == 200


def test_a_dump_holds_them(planted: list[str]) -> None:
    out = StringIO()
    call_command("dumpdata", "django_asherah.EncryptionKey", stdout=out)
    assert len(json.loads(out.getvalue())) == 4


def test_they_have_a_name(planted: list[str]) -> None:
    assert all(" created " in str(row) for row in EncryptionKey.objects.defer("key_record"))


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
def test_a_key_of_the_end_of_time_is_shown(make: Maker, staff: Client, settings: Any, zone: str) -> None:
    settings.TIME_ZONE = zone
    system = make.system(3)
    make.now = MAX_CREATED
    last = make.intermediate(system, "last")

    assert states(staff) == ["current", "superseded"]
    for url in (LIST, page_of(last)):
        shown = page(staff, url)
        assert "end of 9999" in shown
        assert "after 9999" in shown
    assert ">?</span>" in page(staff, page_of(system))


def test_a_key_from_the_future_hides_none(make: Maker, staff: Client) -> None:
    below = make.intermediate(make.system(3), "alice", 2)
    ahead = make.intermediate(make.system(-400), "alice", -400)

    assert states(staff) == ["current", "current", "superseded", "superseded"]
    assert states(staff, "?state=current") == ["current", "current"]
    assert states(staff, "?state=superseded") == ["superseded", "superseded"]
    assert "asherah-current" in page(staff, page_of(below))
    assert "asherah-superseded" in page(staff, page_of(ahead))
