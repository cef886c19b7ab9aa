"""Rows that a hostile reviewer has attacked: moves, rollbacks, odd tenants, threads and frames."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Lower
from django.views.debug import ExceptionReporter

from django_asherah import engine
from django_asherah.envelope.clocks import Clocks
from django_asherah.fields import EncryptedQuerySet
from django_asherah.fields.sealed import SealedValue
from tests.testapp.models import Clinic, Note, Patient
from tests.testapp.tenants import Account, Doctor, Member

pytestmark = pytest.mark.django_db

CANARY = "canary-Zoe-900-12-3456"


class UndoError(Exception):
    pass


def fresh(row: Any) -> Any:
    return type(row)._base_manager.get(pk=row.pk)


def row_opens(row: Any, name: str) -> None:
    getattr(fresh(row), name)


# --- bulk_update of duplicates


def test_bulk_update_of_the_same_instance_twice_leaves_its_value() -> None:
    member = Member.objects.create(tenant="a", secret=CANARY)
    member.secret = "new"
    Member.objects.bulk_update([member, member], ["secret"])
    assert member.secret == "new"


def test_bulk_update_frames_show_no_value() -> None:
    Member.objects.create(tenant="a", name="one")
    other = Member.objects.create(tenant="a", name="two")
    other.name, other.secret = "one", CANARY
    try:
        with transaction.atomic():
            Member.objects.bulk_update([other], ["name", "secret"])
    except IntegrityError:
        page = ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
    assert CANARY not in page


def test_bulk_update_prepare_frames_show_no_value() -> None:
    member = Member.objects.create(tenant="a", name="one")
    other = Member.objects.create(tenant="b", name="two")
    member.secret = CANARY
    other.secret = "\ud800"
    from django_asherah.exceptions import AsherahError

    try:
        Member.objects.bulk_update([member, other], ["secret"])
    except AsherahError:
        page = ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
    assert CANARY not in page


# --- stale rows


def test_save_of_one_field_after_another_moved_the_row(north: Clinic, south: Clinic) -> None:
    row = Patient.objects.create(clinic=north, ssn="old")
    stale = fresh(row)
    row.clinic = south
    row.save()
    stale.ssn = "new"
    with suppress(Exception), transaction.atomic():
        stale.save(update_fields=["ssn"])
    row_opens(row, "ssn")


def test_bulk_update_after_another_moved_the_row() -> None:
    row = Member.objects.create(tenant="a", secret="old")
    stale = fresh(row)
    row.tenant = "b"
    row.save()
    stale.secret = "new"
    with suppress(Exception), transaction.atomic():
        Member.objects.bulk_update([stale], ["secret"])
    row_opens(row, "secret")


def test_save_of_one_field_after_a_rolled_back_move(north: Clinic, south: Clinic) -> None:
    row = Patient.objects.create(clinic=north, ssn="old")
    with pytest.raises(UndoError), transaction.atomic():
        row.clinic = south
        row.save()
        raise UndoError
    row.ssn = "new"
    with suppress(Exception), transaction.atomic():
        row.save(update_fields=["ssn"])
    row_opens(row, "ssn")


def test_save_of_the_tenant_after_a_rolled_back_move(north: Clinic, south: Clinic) -> None:
    row = Patient.objects.create(clinic=north, ssn="old")
    with pytest.raises(UndoError), transaction.atomic():
        row.clinic = south
        row.save()
        raise UndoError
    with suppress(Exception), transaction.atomic():
        row.save(update_fields=["clinic"])
    row_opens(row, "ssn")


def test_save_with_a_deferred_value_after_a_rolled_back_move(north: Clinic, south: Clinic) -> None:
    made = Patient.objects.create(clinic=north, ssn="old", history={"a": 1})
    row = Patient.objects.defer("history").get()
    with pytest.raises(UndoError), transaction.atomic():
        row.clinic = south
        row.save(update_fields=["clinic", "ssn", "scan", "history"])
        raise UndoError
    with suppress(Exception), transaction.atomic():
        row.name = "x"
        row.save()
    row_opens(made, "ssn"), row_opens(made, "history")


# --- receivers


# --- keys of a transaction that was rolled back


def test_an_unread_value_whose_key_was_rolled_back_is_saved_readable() -> None:
    member = Member.objects.create(tenant="rolled-back")
    with pytest.raises(UndoError), transaction.atomic():
        member.secret = "x"
        member.save()
        member.refresh_from_db()
        raise UndoError
    member.save()
    engine.reset()
    assert fresh(member).secret == "x"


def test_an_unread_constant_value_whose_key_was_rolled_back_is_saved_readable() -> None:
    from tests.testapp.models import Tenancy

    row = Tenancy.objects.create()
    with pytest.raises(UndoError), transaction.atomic():
        row.left = "x"
        row.save()
        row.refresh_from_db()
        raise UndoError
    row.save()
    engine.reset()
    assert fresh(row).left == "x"


# --- values of columns that are equal and have other texts


def test_equal_values_of_other_texts() -> None:
    Member.objects.create(tenant=7, name="i", secret="x")
    row = Member.objects.create(tenant=7.0, name="f", secret="x")
    assert fresh(row).tenant == "7.0"
    assert fresh(row).secret == "x"


def test_a_true_tenant_after_one() -> None:
    Member.objects.create(tenant=1, name="i", secret="x")
    row = Member.objects.create(tenant=True, name="f", secret="x")
    assert fresh(row).secret == "x"


def test_partial_save_of_an_equal_tenant_of_another_text() -> None:
    row = Member.objects.create(tenant=7, name="i", secret="x")
    row.tenant = 7.0
    with suppress(Exception), transaction.atomic():
        row.save(update_fields=["tenant"])
    assert fresh(row).secret == "x"


@pytest.mark.parametrize("expression", [F("name"), Lower(Value("NORTH")), Value("north")], ids=str)
def test_a_tenant_that_the_database_computes(expression: Any) -> None:
    row = Member.objects.create(tenant="a", name="north", secret="x")
    row.tenant = expression
    with suppress(Exception), transaction.atomic(), transaction.atomic():
        row.save()
    assert fresh(row).secret == "x"


@pytest.mark.parametrize("expression", [Lower(Value("NORTH")), Value("north")], ids=str)
def test_a_new_row_whose_tenant_the_database_computes(expression: Any) -> None:
    try:
        with transaction.atomic():
            row = Member.objects.create(tenant=expression, secret="x")
    except Exception:
        return
    assert fresh(row).secret == "x"


def test_bulk_create_of_tenants_that_the_database_computes() -> None:
    try:
        with transaction.atomic():
            Member.objects.bulk_create([Member(tenant=Lower(Value("NORTH")), secret="x")])
    except Exception:
        return
    assert Member.objects.get().secret == "x"


def test_bulk_update_of_tenants_that_the_database_computes() -> None:
    row = Member.objects.create(tenant="a", name="north", secret="x")
    row.tenant = F("name")
    with suppress(Exception), transaction.atomic(), transaction.atomic():
        Member.objects.bulk_update([row], ["tenant", "secret", "spare", "photo"])
    assert fresh(row).secret == "x"


# --- copies


def test_a_pickled_instance_with_a_field_read_late_moves(north: Clinic, south: Clinic) -> None:
    made = Patient.objects.create(clinic=north, ssn="x", history={"a": 1}, scan=b"s")
    row = Patient.objects.defer("ssn").get()
    assert row.ssn == "x"
    row = pickle.loads(pickle.dumps(row))
    row.clinic = south
    row.save()
    assert (fresh(made).history, bytes(fresh(made).scan)) == ({"a": 1}, b"s")


# --- wrapped descriptors


def test_loaddata_where_a_descriptor_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As model_utils.FieldTracker does to all fields of a model."""
    from django.core import serializers

    class Wrapper:
        def __init__(self, descriptor: Any) -> None:
            self.descriptor = descriptor

        def __get__(self, instance: Any, owner: Any) -> Any:
            return self if instance is None else self.descriptor.__get__(instance, owner)

        def __set__(self, instance: Any, value: Any) -> None:
            self.descriptor.__set__(instance, value)

        def __delete__(self, instance: Any) -> None:
            self.descriptor.__delete__(instance)

    Member.objects.create(tenant="a", secret="x")
    data = serializers.serialize("json", Member.objects.all())
    Member.objects.all().delete()
    monkeypatch.setattr(Member, "secret", Wrapper(Member.__dict__["secret"]))
    for each in serializers.deserialize("json", data):
        each.save()
    assert Member.objects.get().secret == "x"


# --- third parties that look under a field's attname


def test_assignment_while_another_thread_reads_stands() -> None:
    Note.objects.create(body="old")
    note = Note.objects.get()
    session_type = engine.get_session().__class__

    class Slow(session_type):  # type: ignore[misc, valid-type]
        def decrypt(self, *args: Any) -> bytes:
            opened = super().decrypt(*args)
            note.body = "assigned meanwhile"
            return opened

    note.__dict__["body"].loaded.session.__class__  # it is there
    import msgspec

    held = note.__dict__["body"]
    held_by = held.loaded.session
    slow = Slow(held_by.partition, held_by._keys, Clocks(held_by._clock, held_by._timer))
    note.__dict__["body"] = SealedValue(held.record, msgspec.structs.replace(held.loaded, session=slow))
    _ = note.body
    assert note.body == "assigned meanwhile"


# --- second wave


def test_equal_decimals_of_other_texts() -> None:
    from decimal import Decimal

    Member.objects.create(tenant=Decimal("1.1"), name="i", secret="x")
    row = Member.objects.create(tenant=Decimal("1.10"), name="f", secret="x")
    assert fresh(row).secret == "x"


def test_equal_values_of_other_texts_in_a_template_of_two_columns() -> None:
    from tests.testapp.tenants import Bed

    Bed.objects.create(ward=7, number=1, secret="x")
    row = Bed.objects.create(ward=7.0, number=1, secret="x")
    assert fresh(row).secret == "x"


def test_what_bulk_update_of_duplicates_left_moves_with_its_row() -> None:
    member = Member.objects.create(tenant="a", secret="x")
    Member.objects.bulk_update([member, member], ["secret"])
    member.tenant = "b"
    with suppress(Exception), transaction.atomic():
        member.save()
    assert fresh(member).secret == "x"


def test_an_unreadable_value_is_not_left_in_another_tenants_row() -> None:
    from django_asherah.fields.unreadable import TolerantIterable
    from django_asherah.models import EncryptionKey

    made = Member.objects.create(tenant="a", secret="x")
    gone = list(EncryptionKey.objects.all().values())
    EncryptionKey.objects.all().delete()
    engine.reset()
    rows = Member.objects.all()
    rows._iterable_class = TolerantIterable
    member = rows.get()
    member.secret = member.secret  # as a form does
    member.tenant = "b"
    with suppress(Exception), transaction.atomic():
        member.save()
    EncryptionKey.objects.all().delete()
    EncryptionKey.objects.bulk_create(EncryptionKey(**each) for each in gone)
    engine.reset()
    assert fresh(made).secret == "x"


def test_an_unreadable_value_is_not_written_into_another_tenants_row() -> None:
    from django_asherah.fields.unreadable import Unreadable

    one = Member.objects.create(tenant="a", name="1", secret="x")
    other = Member.objects.create(tenant="b", name="2", secret="mine")
    other.secret = Unreadable(Member._meta.get_field("secret"), Member.objects.get(pk=one.pk).__dict__["secret"].record)
    with suppress(Exception), transaction.atomic():
        other.save()
    assert fresh(other).secret == "mine"


def test_only_of_a_parents_field_takes_no_query_to_read(django_assert_num_queries: Any) -> None:
    Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
    row = Doctor.objects.only("salary").get()
    with django_assert_num_queries(0):
        assert row.salary == "s"


def test_only_of_a_childs_field_takes_no_query_to_read(django_assert_num_queries: Any) -> None:
    Doctor.objects.create(site=1, unit=2, salary="s", licence="l")
    row = Doctor.objects.only("licence").get()
    with django_assert_num_queries(0):
        assert row.licence == "l"


def test_a_field_that_is_added_to_a_finished_model_is_guarded_as_others(transactional_db: None) -> None:
    from django.test.utils import isolate_apps

    from django_asherah.fields import EncryptedTextField

    with isolate_apps("tests.testapp"):

        class Extended(models.Model):
            tenant = models.CharField(max_length=10)

            class Meta:
                app_label = "testapp"

        Extended.add_to_class("secret", EncryptedTextField(partition="x-{tenant}", null=True))
        with connection.schema_editor() as editor:
            editor.create_model(Extended)
        try:
            row = Extended.objects.create(tenant="a", secret="x")
            row.tenant = "b"
            with pytest.raises(FieldError):
                row.save(update_fields=["tenant"])
            assert fresh(row).secret == "x"
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Extended)


def test_explain_union_and_pickled_queries() -> None:
    Member.objects.create(tenant="a", secret="x")
    rows = Member.objects.all()
    assert rows.explain()
    query = pickle.loads(pickle.dumps(Member.objects.values_list("tenant", "secret").query))
    again = Member.objects.all()
    again.query = query
    both = Member.objects.values_list("tenant", "secret").union(
        Member.objects.values_list("tenant", "secret"), all=True
    )
    assert list(both) == [("a", "x")] * 2
    named = Member.objects.values_list("secret", "tenant", named=True).get()
    assert (named.secret, named.tenant) == ("x", "a")
    assert [row.secret for row in Member.objects.raw("SELECT id, secret FROM testapp_member")] == ["x"]
    assert [row.secret for row in rows.union(rows.filter(pk=-1)).order_by("name")] == ["x"]
    assert Member.objects.extra(select={"one": "1"}).values("one", "tenant", "secret").get()["secret"] == "x"
    assert Member.objects.annotate(n=models.Count("referral")).get().secret == "x"
    assert (
        Member.objects.annotate(n=models.Count("referral")).values("tenant", "secret", "n", "pk").get()["secret"] == "x"
    )


def test_reverse_relations_and_dates() -> None:
    from tests.testapp.tenants import Referral

    member = Member.objects.create(tenant="a", secret="x")
    Referral.objects.create(member=member)
    Referral.objects.create(member=None)
    assert [r.member and r.member.secret for r in Referral.objects.select_related("member").order_by("pk")] == [
        "x",
        None,
    ]
    assert list(Referral.objects.order_by("pk").values_list("member__tenant", "member__secret")) == [
        ("a", "x"),
        (None, None),
    ]
    got = Referral.objects.select_related("member").only("member__secret").order_by("pk").first()
    assert got.member.secret == "x"


# --- third wave


def test_a_stale_save_without_a_deferred_value(north: Clinic, south: Clinic) -> None:
    row = Patient.objects.create(clinic=north, ssn="x", history={"a": 1})
    stale = Patient.objects.defer("history").get()
    row.clinic = south
    row.save()
    stale.name = "renamed"
    with suppress(Exception), transaction.atomic():
        stale.save()
    assert fresh(row).history == {"a": 1}
    assert fresh(row).ssn == "x"


def test_bulk_create_again_after_a_rollback() -> None:
    with pytest.raises(UndoError), transaction.atomic():
        Member.objects.bulk_create(Member(tenant=f"t{n}", name=str(n), secret="x") for n in range(5))
        raise UndoError
    made = Member.objects.bulk_create([Member(tenant=f"t{n}", name=str(n), secret="x") for n in range(5)])
    engine.reset()
    assert [member.secret for member in Member.objects.all()] == ["x"] * 5
    assert made


@pytest.mark.parametrize("way", ["save", "bulk_create", "update"])
def test_a_refused_row_shows_no_value(way: str) -> None:
    Member.objects.create(tenant="a", name="one")
    member = Member(tenant="b", name="one", secret=CANARY)
    page = ""
    try:
        with transaction.atomic():
            if way == "save":
                member.save()
            elif way == "bulk_create":
                Member.objects.bulk_create([member])
            else:
                member.name = "two"
                member.save()
                member.name = "one"
                member.save(update_fields=["name", "secret"])
    except IntegrityError:
        page = ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
    assert page
    assert CANARY not in page


def test_admin_save_of_an_unreadable_value_and_another_tenant(admin_client: Any) -> None:
    from django.contrib import admin
    from django.test import RequestFactory

    from django_asherah.admin import EncryptedFieldsAdminMixin
    from django_asherah.models import EncryptionKey

    class MemberAdmin(EncryptedFieldsAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
        fields = ("tenant", "name", "secret")

    made = Member.objects.create(tenant="a", name="n", secret="x")
    gone = list(EncryptionKey.objects.all())
    EncryptionKey.objects.all().delete()
    engine.reset()
    site = MemberAdmin(Member, admin.site)
    request = RequestFactory().post("/", {"tenant": "b", "name": "n"})
    from django.contrib.auth.models import User

    request.user = User.objects.get()
    member = site.get_object(request, str(made.pk))
    form = site.get_form(request, member, change=True)(request.POST, instance=member)
    if not form.is_valid():
        return
    with suppress(Exception), transaction.atomic():
        form.save()
    EncryptionKey.objects.all().delete()
    for each in gone:
        each.save(force_insert=True)
    engine.reset()
    assert fresh(made).secret == "x"


def test_plain_documents_changed_in_place_after_saves() -> None:
    account = Account.objects.create(secret="x", notes={"a": []})
    account.notes["a"].append(1)
    account.save()
    account.notes["a"].append(2)
    account.save(update_fields=["notes"])
    account.notes["a"].append(3)
    EncryptedQuerySet(Account).bulk_update([account], ["notes"])
    account.notes["a"].append(4)
    account.save()
    assert fresh(account).notes == {"a": [1, 2, 3, 4]}


def test_a_rolled_back_bulk_update_of_a_move() -> None:
    row = Member.objects.create(tenant="a", secret="x")
    with pytest.raises(UndoError), transaction.atomic():
        row.tenant = "b"
        Member.objects.bulk_update([row], ["tenant", "secret", "spare", "photo"])
        raise UndoError
    with suppress(Exception), transaction.atomic():
        Member.objects.bulk_update([row], ["tenant"])
    assert fresh(row).secret == "x"


def test_a_pickled_partial_refresh_moves() -> None:
    made = Member.objects.create(tenant="a", secret="x", spare="y")
    row = pickle.loads(pickle.dumps(fresh(made)))
    row.refresh_from_db(fields=["secret"])
    row.tenant = "b"
    row.save()
    assert (fresh(made).secret, fresh(made).spare) == ("x", "y")


# --- fourth wave


def test_grouped_annotations_are_values() -> None:
    Member.objects.create(tenant="a", secret="x", photo=b"p")
    row = Member.objects.annotate(s=F("secret"), p=F("photo"), n=models.Count("referral")).get()
    assert (row.s, bytes(row.p), row.secret, row.n) == ("x", b"p", "x", 0)
    found = Member.objects.annotate(s=F("secret"), n=models.Count("referral")).values("s", "tenant", "pk").get()
    assert found["s"] == "x"


def test_filtered_relations(north: Clinic) -> None:
    Patient.objects.create(clinic=north, ssn="x")
    clinics = Clinic.objects.annotate(
        p=models.FilteredRelation("patient", condition=models.Q(patient__ssn__isnull=False))
    )
    assert list(clinics.values_list("p__clinic_id", "p__ssn")) == [(north.pk, "x")]


def test_a_refused_write_makes_no_key() -> None:
    from django_asherah.exceptions import PartitionMismatchError
    from django_asherah.guard import partition_guard
    from django_asherah.models import EncryptionKey

    with partition_guard("member-a"), pytest.raises(PartitionMismatchError), transaction.atomic():
        Member.objects.create(tenant="guarded-b", secret="x")
    made = [str(key) for key in EncryptionKey.objects.all() if "guarded" in str(key)]
    assert made == []
    assert not [k for k in engine.get_factory().intermediate_keys.cache.newest if "guarded" in k]


def test_in_place_change_of_a_document_that_another_thread_reads() -> None:
    account = Account.objects.create(secret="x", notes={"a": []})
    row = fresh(account)
    row.notes["a"].append(1)
    row.refresh_from_db(fields=["owner"])
    row.save()
    assert fresh(account).notes == {"a": [1]}


def test_setting_defaults_by_update_or_create_moves_whole(north: Clinic, south: Clinic) -> None:
    made = Patient.objects.create(clinic=north, name="n", ssn="x", history={"a": 1}, scan=b"s")
    Patient.objects.update_or_create(name="n", defaults={"clinic": south})
    again = fresh(made)
    assert (again.ssn, again.history, bytes(again.scan)) == ("x", {"a": 1}, b"s")
    Patient.objects.defer("history").update_or_create(name="n", defaults={"clinic": north})
    again = fresh(made)
    assert (again.ssn, again.history, bytes(again.scan)) == ("x", {"a": 1}, b"s")


def test_composite_key_moves() -> None:
    from tests.testapp.tenants import Stay

    Stay.objects.create(house=1, number=1, secret="one")
    Stay.objects.create(house=2, number=1, secret="two")
    row = Stay.objects.get(house=1)
    row.house = 2
    row.save()
    assert Stay.objects.get(house=2).secret == "one"
    assert Stay.objects.get(house=1).secret == "one"
    partial = Stay.objects.only("secret").get(house=1)
    assert partial.secret == "one"
    row = Stay.objects.get(house=1)
    row.house = 2
    with suppress(Exception), transaction.atomic():
        row.save(update_fields=["secret"])
    assert Stay.objects.get(house=2).secret == "one"


def test_a_value_assigned_then_rolled_back_key_then_bulk_update() -> None:
    row = Member.objects.create(tenant="fresh-key", name="n")
    with pytest.raises(UndoError), transaction.atomic():
        Member.objects.filter(pk=row.pk).update(name="m")
        row.secret = "x"
        row.save()
        row = fresh(row)
        raise UndoError
    Member.objects.bulk_update([row], ["secret"])
    engine.reset()
    assert fresh(row).secret == "x"


def test_a_copy_in_a_transaction_that_was_rolled_back_is_readable() -> None:
    with pytest.raises(UndoError), transaction.atomic():
        row = fresh(Member.objects.create(tenant="fresh-key", name="n", secret="x"))
        raise UndoError
    row.pk, row._state.adding = None, True
    row.save()
    engine.reset()
    assert fresh(row).secret == "x"


@pytest.mark.django_db(transaction=True)
def test_an_unread_value_whose_key_was_rolled_back_with_a_real_transaction(file_alias: str, settings: Any) -> None:
    """The regression in its plainest form: no test transaction around it, a SQLite file, a field of one partition."""
    from tests.databases import as_asherah

    settings.ASHERAH = as_asherah(DATABASE=file_alias)
    with pytest.raises(UndoError), transaction.atomic(using=file_alias):
        note = Note.objects.using(file_alias).create(body="x")
        note.refresh_from_db()
        raise UndoError
    note.save(using=file_alias)  # The row is gone, so Django inserts it again.
    engine.reset()
    assert Note.objects.using(file_alias).get().body == "x"


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer")
def test_two_processes_that_make_the_keys_of_the_same_partitions() -> None:
    from threading import Thread

    from django_asherah.envelope.session import SessionFactory

    base = engine.get_factory()
    failed: list[Any] = []

    def make(names: list[str]) -> None:
        factory = SessionFactory(base.service, base.product, base.metastore, base.kms, base.policy)
        try:
            factory.current_keys(names)
        except BaseException as exc:
            failed.append(exc)
        finally:
            connection.close()

    names = [f"p{n}" for n in range(900)]
    threads = [Thread(target=make, args=(each,)) for each in (names, names[::-1], names[450:] + names[:450])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
