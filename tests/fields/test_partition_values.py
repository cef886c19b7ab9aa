"""Rows whose columns hold odd tenants: two that differ never share a key, and what can't be a partition is refused."""

from __future__ import annotations

import unicodedata
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils.safestring import mark_safe

from django_asherah import engine
from django_asherah.exceptions import EncryptionError, PartitionMismatchError
from django_asherah.models import EncryptionKey
from tests.fields.helpers import is_sealed_for, record_of, refused
from tests.testapp.models import Clinic, Patient
from tests.testapp.tenants import Account, Bed, Member, Ticket

pytestmark = pytest.mark.django_db(transaction=True)

PAIRS = {
    "case": ("Ab", "aB"),
    "case beyond ASCII": ("É", "é"),
    "Unicode forms": (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
    "accents": ("e", "é"),
    "width": ("A", "Ａ"),
    "a space at the end": ("a", "a "),
    "a space at the start": ("a", " a"),
    "two spaces": (" ", "  "),
    "a line break": ("a", "a\n"),
    "an escape": ("_", "%5F"),
    "an escape of an escape": ("%", "%25"),
    "a separator of key ids": ("a_b", "a-b"),
    "the end of a key id": ("a", "a_suite_tests"),
    "a Turkish i": ("i", "ı"),
    "a sharp s": ("ss", "ß"),
    "zeros in front": ("7", "07"),
    "a zero-width joiner": ("a", "a\u200d"),
    "a backslash": ("a", "a\\"),
    "a quote": ("a", "a'"),
    "per cent": ("a", "a%"),
    "braces": ("a", "{tenant}"),
    "null": ("None", "null"),
    "the sign": ("-7", "7"),
}


@pytest.mark.parametrize("pair", PAIRS)
class TestTwoTenants:
    def make(self, pair: str) -> tuple[Member, Member]:
        one, two = (
            Member.objects.create(tenant=tenant, name=str(n), secret=f"of {n}", photo=b"%d" % n)
            for n, tenant in enumerate(PAIRS[pair])
        )
        return one, two

    def test_they_have_two_keys_and_read_their_own_values(self, pair: str) -> None:
        self.make(pair)
        keys = EncryptionKey.objects.filter(key_id__contains="_IK_member-").values_list("key_id", flat=True)
        assert len(set(keys)) == 2
        for _ in range(2):
            found = Member.objects.order_by("name")
            assert [(row.tenant, row.secret, row.photo) for row in found] == [
                (PAIRS[pair][0], "of 0", b"0"),
                (PAIRS[pair][1], "of 1", b"1"),
            ]
            assert list(found.values_list("tenant", "secret", "photo")) == [
                (PAIRS[pair][0], "of 0", b"0"),
                (PAIRS[pair][1], "of 1", b"1"),
            ]
            engine.reset()

    def test_none_reads_the_others(self, pair: str) -> None:
        one, two = self.make(pair)
        for name in ("secret", "photo"):
            records = record_of(one, name), record_of(two, name)
            with connection.cursor() as cursor:
                for row, record in zip((two, one), records, strict=True):
                    cursor.execute(f"UPDATE testapp_member SET {name} = %s WHERE id = %s", [record, row.pk])
        engine.reset()
        for row in Member.objects.all():
            for name in ("secret", "photo"):
                with pytest.raises(PartitionMismatchError, match=rf"testapp\.Member\.{name} pk={row.pk}"):
                    getattr(row, name)

    def test_a_move_between_them_is_one(self, pair: str) -> None:
        one, two = self.make(pair)
        two.delete()
        moved = Member.objects.get(pk=one.pk)
        moved.tenant = PAIRS[pair][1]
        moved.save()
        engine.reset()
        loaded = Member.objects.get()
        assert (loaded.tenant, loaded.secret, loaded.photo) == (PAIRS[pair][1], "of 0", b"0")


class TestRefused:
    LONG = "[0-9]+ characters makes a key id of [0-9]+ characters; the key table holds 255: choose a shorter partition"

    @pytest.mark.parametrize("tenant", ["x" * 255, "_" * 100, "é" * 40, "😀" * 25])
    def test_a_partition_that_is_too_long(self, tenant: str) -> None:
        for make in (
            lambda: Member.objects.create(tenant=tenant, secret="s"),
            lambda: Member.objects.bulk_create([Member(tenant="a", name="a"), Member(tenant=tenant, secret="s")]),
        ):
            with refused(EncryptionError, rf"testapp\.Member\.secret: partition 'member-.*…' of {self.LONG}"):
                make()
        assert not Member.objects.exists()
        assert Member.objects.create(tenant=tenant, secret=None).secret is None

    def test_the_longest_that_fits(self) -> None:
        room = 255 - len("_IK_member-_suite_tests")
        for tenant in ("x" * room, "_" * (room // 3)):
            Member.objects.create(tenant=tenant, name=tenant[:1], secret="s")
        with refused(EncryptionError, "the key table holds 255"):
            Member.objects.create(tenant="x" * (room + 1), secret="s")
        engine.reset()
        assert [row.secret for row in Member.objects.all()] == ["s", "s"]

    @pytest.mark.parametrize(
        ("tenant", "reason"),
        [
            (None, "which is None: set it before the row is saved"),
            ("", "which is empty"),
            (mark_safe(""), "which is empty"),
            ("a\ud800", "which holds lone surrogates, and these are not Unicode text"),
        ],
    )
    def test_a_row_that_says_none(self, tenant: Any, reason: str) -> None:
        message = rf"^testapp\.Member\.secret: its partition 'member-\{{tenant\}}' needs 'tenant', {reason}"
        with refused(EncryptionError, message):
            Member.objects.create(tenant=tenant, secret="s")
        with refused(EncryptionError, message):
            Member.objects.bulk_create([Member(tenant=tenant, secret="s")])
        made = Member.objects.create(tenant="a", secret="s")
        for loaded in (made, Member.objects.get()):
            loaded.tenant, loaded.secret = tenant, "t"
            with refused(EncryptionError, message):
                loaded.save()
        assert [(row.tenant, row.secret) for row in Member.objects.all()] == [("a", "s")]

    @pytest.mark.parametrize("value", ["x", "", "900-12"])
    def test_a_text_that_is_no_number(self, value: str) -> None:
        field: Any = Patient._meta.get_field("ssn")
        with refused(
            EncryptionError, "^its partition .* needs '(clinic|owner)', which can't be this (str|list|object|int)$"
        ):
            field.partition_of([value])

    @pytest.mark.parametrize("value", ["x", "", [], object(), 2**2000])
    @pytest.mark.parametrize("field", [Patient._meta.get_field("ssn"), Account._meta.get_field("secret")], ids=str)
    def test_a_value_that_is_none_of_its_column(self, field: Any, value: Any) -> None:
        if isinstance(value, int | str) and field.model is Patient:
            return  # An integer all the same, whose length is the key id's error; of a text see above.
        with refused(
            EncryptionError, "^its partition .* needs '(clinic|owner)', which can't be this (str|list|object|int)$"
        ):
            field.partition_of([value])
        row = field.model(**{field.partition_fields[0].attname: value})
        with pytest.raises((EncryptionError, ValidationError, ValueError, TypeError)):  # Django's, if it looks first.
            row.save()
        assert not field.model.objects.exists()

    def test_a_row_that_the_database_holds_without_a_tenant_does_not_open(self) -> None:
        member = Member.objects.create(tenant="a", secret="s", photo=b"p")
        Member.objects.update(tenant="")
        for name in ("secret", "photo"):
            with refused(EncryptionError, rf"testapp\.Member\.{name} pk={member.pk}: .*which is empty"):
                getattr(Member.objects.get(), name)
        with refused(EncryptionError, r"testapp\.Member\.secret: .*which is empty"):
            list(Member.objects.values("secret", "tenant"))
        loaded = Member.objects.get()
        loaded.tenant = "a"
        with refused(EncryptionError, "which is empty"):
            loaded.save()
        Member.objects.update(tenant="a")
        assert Member.objects.get().secret == "s"


@pytest.mark.skipif(connection.vendor == "postgresql", reason="PostgreSQL has no NUL in texts")
def test_nul_is_a_character_like_any_other() -> None:
    for n, tenant in enumerate(("a", "a\0", "\0a")):
        Member.objects.create(tenant=tenant, name=str(n), secret=tenant)
    assert [row.secret for row in Member.objects.order_by("name")] == ["a", "a\0", "\0a"]


@pytest.mark.parametrize("ward", [Bed.Ward.SOUTH, mark_safe("south wing"), "south wing"], ids=["choice", "safe", "str"])
@pytest.mark.parametrize("number", [7, "7", " 7", 7.0, True and 7])
def test_whatever_a_column_takes_for_the_same_is_the_same(ward: Any, number: Any) -> None:
    bed = Bed.objects.create(ward=ward, number=number, secret="s")
    assert is_sealed_for(bed, "secret", "bed-south%20wing:7")
    assert (Bed.objects.get().secret, bed.secret) == ("s", "s")


@pytest.mark.parametrize(
    "owner", [UUID(int=255), str(UUID(int=255)), UUID(int=255).hex.upper(), 255, f"{{{UUID(int=255)}}}"]
)
def test_a_uuid_in_every_spelling(owner: Any) -> None:
    account = Account.objects.create(owner=owner, secret="s")
    assert is_sealed_for(account, "secret", "owner-00000000-0000-0000-0000-0000000000ff")
    assert Account.objects.get().secret == "s"


@pytest.mark.parametrize("paid", [True, 1, "1", "True", "t"])
@pytest.mark.parametrize("level", [Ticket.Level.LOW, -1, "-1", -1.5])
@pytest.mark.parametrize("day", ["2026-02-28", "2026-2-28"])
def test_a_date_a_truth_value_and_a_choice_in_every_spelling(paid: Any, level: Any, day: str) -> None:
    ticket = Ticket.objects.create(day=day, is_paid=paid, level=level, by_day="d", by_payment="p", by_level="l")
    assert is_sealed_for(ticket, "by_day", "day-2026-02-28")
    assert is_sealed_for(ticket, "by_payment", "paid-True")
    assert is_sealed_for(ticket, "by_level", "level--1")
    loaded = Ticket.objects.get()
    assert (loaded.by_day, loaded.by_payment, loaded.by_level) == ("d", "p", "l")


def test_a_tenant_that_is_no_number_but_looks_like_one(north: Clinic) -> None:
    """A CharField tells 7 from 07; an integer does not."""
    for n, tenant in enumerate((7, "7", "07", True, 1.5)):
        Member.objects.create(tenant=tenant, name=str(n), secret=str(tenant))
    found = Member.objects.order_by("name")
    assert [(row.tenant, row.secret) for row in found] == [
        ("7", "7"), ("7", "7"), ("07", "07"), ("True", "True"), ("1.5", "1.5"),
    ]  # fmt: skip


def test_equal_values_of_which_a_text_column_makes_different_texts() -> None:
    for n, tenant in enumerate((1, True, 1.0)):
        Member.objects.create(tenant=tenant, name=str(n), secret=str(tenant))
    found = Member.objects.order_by("name")
    assert [(row.tenant, row.secret) for row in found] == [("1", "1"), ("True", "True"), ("1.0", "1.0")]
