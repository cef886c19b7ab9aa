"""Verify and revoke from the admin: who may, what happens, and what is written down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_asherah import lifecycle, signals
from django_asherah.envelope.records import KeyMeta
from django_asherah.lifecycle import KeyState
from django_asherah.models import EncryptionKey
from tests.admin.conftest import ARNS, LIST, SK_ID, Maker, page_of, pk_of, regional
from tests.testapp.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _regions(settings: Any) -> None:
    settings.ASHERAH = regional()


def do(client: Client, action: str, *metas: KeyMeta, **data: str) -> Any:
    chosen = {"action": action, "_selected_action": [pk_of(meta) for meta in metas], **data}
    return client.post(LIST, chosen, follow=True)


def said(response: Any) -> list[tuple[str, str]]:
    return [(message.level_tag, message.message) for message in response.context["messages"]]


def logged() -> list[tuple[str, str]]:
    entries = LogEntry.objects.order_by("pk")
    assert all(entry.action_flag == CHANGE for entry in entries)
    return [(entry.object_id or "", entry.change_message) for entry in entries]


def states() -> dict[KeyMeta, KeyState]:
    return {key.meta: key.state for key in lifecycle.list_keys()}


class TestVerify:
    def test_a_system_key(self, make: Maker, staff: Client) -> None:
        meta = make.system(1)

        text = f"Verified {meta}: it opens in us-west-2, us-east-1."

        assert said(do(staff, "verify_keys", meta)) == [("success", text)]
        assert logged() == [(str(pk_of(meta)), text)]
        assert text in unescape(staff.get(f"{LIST}{pk_of(meta)}/history/").content.decode())

    def test_a_region_that_does_not_open_it(self, make: Maker, staff: Client, settings: Any) -> None:
        meta = make.system(1)
        settings.ASHERAH = regional(down=("us-east-1",))

        [(level, text)] = said(do(staff, "verify_keys", meta))

        assert (level, text) == ("error", f"Verified {meta}, and it failed: us-east-1 can't.")
        assert logged() == [(str(pk_of(meta)), text)]

    def test_an_intermediate_key_and_the_system_key_above_it(self, make: Maker, staff: Client, settings: Any) -> None:
        system = make.system(1)
        meta = make.intermediate(system)
        assert said(do(staff, "verify_keys", meta))[0][0] == "success"

        settings.ASHERAH = regional(down=("us-east-1",))
        assert said(do(staff, "verify_keys", meta)) == [("error", f"Verified {meta}, and it failed: us-east-1 can't.")]

    def test_an_intermediate_key_whose_system_key_is_gone(self, make: Maker, staff: Client) -> None:
        system = make.system(1)
        meta = make.intermediate(system)
        EncryptionKey.objects.filter(key_id=SK_ID).delete()

        assert said(do(staff, "verify_keys", meta)) == [
            ("error", f"Verified {meta}, and it failed: there is no readable key {system}.")
        ]

    def test_a_static_kms(self, make: Maker, staff: Client, settings: Any) -> None:
        settings.ASHERAH = {**regional(), "KMS": "static", "KMS_OPTIONS": {"key": "5a" * 32}}
        meta = make.system(1)

        assert said(do(staff, "verify_keys", meta)) == [("success", f"Verified {meta}: it opens.")]

    def test_another_services_key_is_left_alone(self, make: Maker, staff: Client) -> None:
        meta = make.system(1, key_id="_SK_other_product")

        [(level, text)] = said(do(staff, "verify_keys", meta))

        assert level == "warning"
        assert "another service's key" in text
        assert logged() == []

    def test_a_row_that_cant_be_read(self, make: Maker, staff: Client) -> None:
        make.row("_SK_broken", {"a": 1})
        chosen = {"action": "verify_keys", "_selected_action": EncryptionKey.objects.get().pk}

        [(level, text)] = said(staff.post(LIST, chosen, follow=True))

        assert level == "error"
        assert "can't be read" in text


class TestRevoke:
    def test_it_asks_first(self, make: Maker, staff: Client) -> None:
        system = make.system(1)
        make.intermediate(system, "alice")
        meta = make.intermediate(system, "bob")

        text = do(staff, "revoke_keys", system, meta).content.decode()

        assert "there is no way back" in text
        assert "Other processes notice within 60 minutes" in text
        assert "every partition, 2 intermediate keys under this one" in " ".join(text.split())
        assert 'partition <span class="asherah-id">bob</span>' in text
        assert set(states().values()) == {KeyState.CURRENT}
        assert logged() == []
        make.assert_none_shown(text)

    def test_then_it_revokes(self, make: Maker, staff: Client) -> None:
        system = make.system(1)
        meta = make.intermediate(system)
        note = Note.objects.create(body="old")

        response = do(staff, "revoke_keys", meta, confirmed="yes")

        assert said(response) == [("success", f"Revoked {meta}.")]
        assert logged() == [(str(pk_of(meta)), f"Revoked {meta}.")]
        assert states()[meta] is KeyState.REVOKED
        note.refresh_from_db()
        assert note.body == "old"
        Note.objects.create(body="new")
        assert EncryptionKey.objects.filter(key_id=meta.key_id).count() == 2

    def test_twice(self, make: Maker, staff: Client) -> None:
        meta = make.system(1, revoked=True)

        assert said(do(staff, "revoke_keys", meta, confirmed="yes")) == [("info", f"{meta} was revoked already.")]
        assert logged() == []

    def test_a_key_that_is_gone_by_then(self, make: Maker, staff: Client) -> None:
        meta = make.system(1)
        pk = pk_of(meta)
        EncryptionKey.objects.all().delete()

        response = staff.post(LIST, {"action": "revoke_keys", "_selected_action": pk, "confirmed": "yes"}, follow=True)

        assert response.status_code == 200
        assert logged() == []

    def test_a_key_that_goes_meanwhile_is_an_error_of_its_own(self, make: Maker, staff: Client) -> None:
        system = make.system(1)
        meta = make.intermediate(system, "bob")

        def delete_the_other(key_id: str, **arguments: Any) -> None:
            EncryptionKey.objects.exclude(key_id=key_id).delete()

        signals.key_revoked.connect(delete_the_other)
        try:
            response = do(staff, "revoke_keys", system, meta, confirmed="yes")
        finally:
            signals.key_revoked.disconnect(delete_the_other)

        (done, failed) = sorted(said(response), reverse=True)
        (first, other) = (system, meta) if done[1] == f"Revoked {system}." else (meta, system)
        assert done == ("success", f"Revoked {first}.")
        assert failed[0] == "error"
        assert failed[1].startswith(
            f"{other} was not revoked: no key {other.key_id} created {other.created}; there is no"
        )
        assert logged()[0][1] == f"Revoked {first}."
        assert len(logged()) == 1

    def test_many_keys_below_are_counted_no_further_than_a_thousand(self, make: Maker, staff: Client) -> None:
        meta = make.system(1)
        record = {"Created": make.now, "Key": "A" * 80, "ParentKeyMeta": {"KeyId": SK_ID, "Created": meta.created}}
        EncryptionKey.objects.bulk_create(
            EncryptionKey(key_id=f"_IK_{number}_suite_tests", created=make.moment(0), key_record=record)
            for number in range(1200)
        )

        with CaptureQueriesContext(connection) as queries:
            text = do(staff, "revoke_keys", meta).content.decode()

        assert "every partition, more than 1000 intermediate keys" in " ".join(text.split())
        assert len(queries) <= 12

    def test_a_forged_request_without_a_token_is_refused(self, make: Maker, staff: Client) -> None:
        meta = make.system(1)
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = staff.cookies

        response = strict.post(LIST, {"action": "revoke_keys", "_selected_action": pk_of(meta), "confirmed": "yes"})

        assert response.status_code == 403
        assert states() == {meta: KeyState.CURRENT}


class TestAuditLines:
    def test_they_name_the_user(self, make: Maker, staff: Client, caplog: pytest.LogCaptureFixture) -> None:
        system = make.system(1)
        meta = make.intermediate(system)
        user = User.objects.get()
        by = f"by=admin:{user.username}#{user.pk}"
        with caplog.at_level(logging.INFO, "django_asherah.audit"):
            do(staff, "verify_keys", meta)
            do(staff, "revoke_keys", meta, confirmed="yes")
        named = f"key_id={meta.key_id} created={meta.created}"
        assert [line.getMessage() for line in caplog.records if line.name == "django_asherah.audit"] == [
            f"verified_keys {named} system_keys=1 intermediate_keys=1 problems=0 {by}",
            f"revoked {named} {by}",
        ]

    def test_a_username_cant_forge_a_detail(self, make: Maker, staff: Client, caplog: pytest.LogCaptureFixture) -> None:
        User.objects.update(username="eve#1 by=admin:bob")
        meta = make.system(1)
        with caplog.at_level(logging.INFO, "django_asherah.audit"):
            do(staff, "revoke_keys", meta, confirmed="yes")
        line = caplog.records[0].getMessage()
        assert line.endswith(f' by="admin:eve#1 by=admin:bob#{User.objects.get().pk}"')


@pytest.mark.parametrize("action", ["verify_keys", "revoke_keys"])
def test_ten_keys_at_the_most(make: Maker, staff: Client, action: str) -> None:
    metas = [make.system(day) for day in range(1, 12)]

    [(level, text)] = said(do(staff, action, *metas, confirmed="yes"))

    assert level == "error"
    assert text.startswith("Choose 10 keys at the most.")
    assert KeyState.REVOKED not in states().values()
    assert logged() == []


class TestPermissions:
    def test_one_who_may_only_look(self, make: Maker, user_with: Callable[..., Client]) -> None:
        meta, client = make.system(1), user_with("view")

        for url in [LIST, page_of(meta)]:
            text = client.get(url).content.decode()
            assert "verify_keys" not in text
            assert "revoke_keys" not in text
        for action in ["verify_keys", "revoke_keys", "delete_selected"]:
            do(client, action, meta, confirmed="yes", post="yes")
        assert states() == {meta: KeyState.CURRENT}
        assert logged() == []

    @pytest.mark.parametrize(("may", "may_not"), [("verify", "revoke"), ("revoke", "verify")])
    def test_each_deed_has_a_permission_of_its_own(
        self, make: Maker, user_with: Callable[..., Client], may: str, may_not: str
    ) -> None:
        meta, client = make.system(1), user_with("view", may)

        text = client.get(page_of(meta)).content.decode()

        assert f"{may}_keys" in text
        assert f"{may_not}_keys" not in text
        do(client, f"{may_not}_keys", meta, confirmed="yes")
        assert logged() == []
        do(client, f"{may}_keys", meta, confirmed="yes")
        assert len(logged()) == 1

    @pytest.mark.parametrize("permissions", [(), ("verify", "revoke")])
    def test_one_who_may_not_look_sees_nothing(
        self, make: Maker, user_with: Callable[..., Client], permissions: tuple[str, ...]
    ) -> None:
        meta, client = make.system(1), user_with(*permissions)

        assert client.get(LIST).status_code == 403
        assert client.get(page_of(meta)).status_code == 403
        assert client.get(f"{LIST}{pk_of(meta)}/history/").status_code == 403
        assert do(client, "revoke_keys", meta, confirmed="yes").status_code == 403
        assert "Encryption keys" not in client.get("/admin/").content.decode()
        assert states() == {meta: KeyState.CURRENT}

    @pytest.mark.parametrize("place", ["add/", "{}/delete/"])
    def test_not_even_a_superuser_adds_or_deletes(self, make: Maker, admin_client: Client, place: str) -> None:
        meta = make.system(1)
        url = LIST + place.format(pk_of(meta))

        assert admin_client.get(url).status_code == 403
        assert admin_client.post(url, {"post": "yes"}).status_code == 403
        assert states() == {meta: KeyState.CURRENT}

    def test_not_even_a_superuser_changes(self, make: Maker, admin_client: Client) -> None:
        meta = make.system(1)

        response: HttpResponse = admin_client.post(page_of(meta), {"key_id": "x", "key_record": "{}"})

        assert response.status_code == 403
        assert states() == {meta: KeyState.CURRENT}

    def test_a_stranger_is_sent_to_log_in(self, make: Maker, client: Client) -> None:
        response = client.get(page_of(make.system(1)))

        assert response.status_code == 302
        assert "/login/" in response["Location"]


def test_the_detail_page_of_a_revoked_key_offers_no_second_revocation(make: Maker, staff: Client) -> None:
    text = staff.get(page_of(make.system(1, revoked=True))).content.decode()

    assert 'value="verify_keys"' in text
    assert 'value="revoke_keys"' not in text
    assert ARNS["us-west-2"] in text
