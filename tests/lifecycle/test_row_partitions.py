"""Verify and re-encrypt where the row says the partition: by columns of every kind, and with every kind of key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, models
from msgspec import structs

from django_asherah import lifecycle
from django_asherah.fields import EncryptedTextField
from django_asherah.lifecycle.columns import encrypted_columns
from django_asherah.lifecycle.reencryption import Options
from django_asherah.lifecycle.swap import Swap, swap_values
from tests.databases import VENDOR, execute, in_thread
from tests.lifecycle.tenants import KINDS, Kind, fill, intact, key_id, make_model, texts, with_table

pytestmark = pytest.mark.django_db(transaction=True)

COLUMNS = ("testapp.Tenanted.body", "testapp.Tenanted.code")


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def model(kind: Kind, transactional_db: None) -> Iterator[Any]:
    with with_table(make_model(kind)) as model:
        fill(model, kind)
        yield model


def test_every_value_is_proven_under_its_rows_partition(model: Any, kind: Kind) -> None:
    count = model.objects.count()
    report = lifecycle.verify_data(["testapp.Tenanted"])
    assert (report.columns, report.bad) == (dict.fromkeys(COLUMNS, count), [])
    each = 2 * count // len(kind.places)
    assert {meta.key_id: values for meta, values in report.keys.items()} == {
        key_id(partition): each for partition in kind.partitions
    }
    assert [count for _, count in report.system_keys.items()] == [2 * count]


def test_every_value_moves_to_the_newest_key_of_its_rows_partition(model: Any, kind: Kind) -> None:
    count = model.objects.count()
    before = set(lifecycle.verify_data(["testapp.Tenanted"]).keys)
    lifecycle.rotate()
    report = lifecycle.reencrypt(["testapp.Tenanted"], options=Options(batch=2))
    assert (report.rewritten, report.moved, report.bad) == (dict.fromkeys(COLUMNS, count), {}, [])
    assert texts(model) == intact(count)
    after = lifecycle.verify_data(["testapp.Tenanted"])
    assert {meta.key_id for meta in after.keys} == {key_id(partition) for partition in kind.partitions}
    assert not before & set(after.keys)
    assert lifecycle.reencrypt(["testapp.Tenanted"]).current == dict.fromkeys(COLUMNS, count)


def test_shards_share_the_rows_out(model: Any) -> None:
    lifecycle.rotate()
    reports = [lifecycle.reencrypt(["testapp.Tenanted"], options=Options(shard=k, shards=2, batch=2)) for k in range(2)]
    assert sum((report.rewritten for report in reports), start=type(reports[0].rewritten)()) == dict.fromkeys(
        COLUMNS, model.objects.count()
    )
    assert texts(model) == intact(model.objects.count())


def move_away(model: Any, kind: Kind) -> int:
    """Move the first tenant's rows to the second with SQL alone; return how many."""
    old, new = kind.places[:2]
    # Found by Python, as MariaDB takes one tenant for another that differs in case alone.
    keys = [row.pk for row in model.objects.all() if all(getattr(row, name) == value for name, value in old.items())]
    return int(model.objects.filter(pk__in=keys).update(**new))


@pytest.fixture
def moved(model: Any, kind: Kind) -> int:
    if "{own}" in kind.template:
        execute("default", "DELETE FROM tenanted WHERE serial = 1")
    return move_away(model, kind)


class TestMoved:
    def test_each_value_left_behind_is_reported_with_both_partitions_and_the_way_out(
        self, model: Any, kind: Kind, moved: int
    ) -> None:
        report = lifecycle.verify_data(["testapp.Tenanted"])
        assert (report.bad.total, report.columns.total()) == (2 * moved, 2 * (model.objects.count() - moved))
        old, new = kind.partitions[:2]
        assert {bad.reason for bad in report.bad} == {
            f"PartitionMismatchError: the record is of partition {old!r}, but the row says {new!r}. If the row was "
            f"moved or the field's partition changed, run: manage.py asherah_reencrypt {column} --moved. If not, "
            "somebody has put another row's record here"
            for column in COLUMNS
        }
        # Compact records don't name their key, and need it no less.
        assert {bad.key.partition(" ")[0] for bad in report.bad} == {key_id(old)}
        assert sum(count for meta, count in report.keys.items() if meta.key_id == key_id(old)) == 2 * moved

    def test_unless_asked_for_they_are_left_byte_for_byte(self, model: Any, moved: int) -> None:
        before = execute("default", "SELECT body, code FROM tenanted ORDER BY serial")
        report = lifecycle.reencrypt(["testapp.Tenanted"])
        assert (report.bad.total, report.rewritten, report.moved) == (2 * moved, {}, {})
        assert execute("default", "SELECT body, code FROM tenanted ORDER BY serial") == before

    def test_on_request_they_are_sealed_for_their_row(self, model: Any, kind: Kind, moved: int) -> None:
        count = model.objects.count()
        report = lifecycle.reencrypt(["testapp.Tenanted"], options=Options(moved=True, batch=2))
        assert report.bad == []
        assert report.rewritten == report.moved == dict.fromkeys(COLUMNS, moved)
        assert report.current == (dict.fromkeys(COLUMNS, count - moved) if count > moved else {})
        assert texts(model) == sorted(
            (row.serial, f"body {row.serial}", f"code {row.serial}") for row in model.objects.all()
        )
        verified = lifecycle.verify_data(["testapp.Tenanted"])
        assert (verified.bad, verified.columns.total()) == ([], 2 * count)
        assert key_id(kind.partitions[0]) not in {meta.key_id for meta in verified.keys}

    def test_a_dry_run_writes_nothing(self, model: Any, moved: int) -> None:
        before = execute("default", "SELECT body, code FROM tenanted ORDER BY serial")
        report = lifecycle.reencrypt(["testapp.Tenanted"], options=Options(moved=True, dry_run=True))
        assert report.moved == dict.fromkeys(COLUMNS, moved)
        assert execute("default", "SELECT body, code FROM tenanted ORDER BY serial") == before


class TestRace:
    """A row is moved to another tenant after its value was read, and before the new one is written."""

    @pytest.fixture(params=["body", "code"])
    def column(self, request: pytest.FixtureRequest, model: Any, kind: Kind) -> str:
        if "{own}" in kind.template:
            pytest.skip("such a row is another row once it has moved")
        model.objects.exclude(serial=0).delete()
        lifecycle.rotate()
        return f"testapp.Tenanted.{request.param}"

    @pytest.fixture
    def racing(self, column: str, model: Any, kind: Kind) -> Iterator[list[Any]]:
        moves: list[Any] = [kind.places[1]]

        def move_first(execute_it: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            if sql.startswith("UPDATE") and "tenanted" in sql and moves:
                model.objects.update(**moves.pop())
            return execute_it(sql, params, many, context)

        with connection.execute_wrapper(move_first):
            yield moves

    def test_nothing_of_the_old_tenants_is_written_into_it(self, racing: list[Any], column: str, model: Any) -> None:
        name = column.rpartition(".")[2]
        before = execute("default", f"SELECT {name} FROM tenanted")
        report = lifecycle.reencrypt([column])
        assert (racing, report.conflicts, report.rewritten.total()) == ([], 1, 0)
        assert [bad.reason.partition(":")[0] for bad in report.bad] == ["PartitionMismatchError"]
        assert execute("default", f"SELECT {name} FROM tenanted") == before

    def test_on_request_it_is_sealed_for_the_new_one(self, racing: list[Any], column: str, model: Any) -> None:
        report = lifecycle.reencrypt([column], options=Options(moved=True))
        assert (racing, report.moved, report.bad) == ([], {column: 1}, [])
        assert lifecycle.verify_data([column]).bad == []


class TestCollation:
    """Tenants that the database takes for the same, and that have a key each."""

    @pytest.fixture
    def model(self, transactional_db: None) -> Iterator[Any]:
        if VENDOR == "postgresql":
            execute(
                "default",
                "CREATE COLLATION IF NOT EXISTS nocase (provider=icu, locale='und-u-ks-level2', deterministic=false)",
            )
        collation = "utf8mb4_general_ci" if VENDOR == "mysql" else "nocase"
        columns = {"tenant": models.CharField(max_length=9, db_collation=collation)}
        kind = Kind("t-{tenant}", [{"tenant": "a"}], [], lambda: columns)
        with with_table(make_model(kind)) as model:
            fill(model, kind, rounds=1)
            yield model

    def test_the_swap_does_not(self, model: Any) -> None:
        (column,) = encrypted_columns(["testapp.Tenanted.body"])
        (row,) = column.at([model.objects.get(tenant="A").pk])
        assert row.place == ("a",)
        swap = Swap(row.pk, row.raw, "wrong", ("A",))
        assert swap_values(connection, column, [swap]) == [row.pk]
        assert swap_values(connection, column, [structs.replace(swap, place=("a ",))]) == [row.pk]
        assert model.objects.get().body == "body 0"
        assert swap_values(connection, column, [structs.replace(swap, place=("a",))]) == []


class TestInherited:
    """The tenant stands in the parent's table."""

    @pytest.fixture
    def child(self, transactional_db: None) -> Iterator[Any]:
        meta = type("Meta", (), {"app_label": "testapp"})
        parent: Any = type(
            "TenantParent",
            (models.Model,),
            {"__module__": __name__, "Meta": meta, "tenant": models.CharField(max_length=9)},
        )
        body = EncryptedTextField(partition="t-{tenant}")
        child = type("TenantChild", (parent,), {"__module__": __name__, "Meta": meta, "body": body})
        with with_table(parent), with_table(child):
            child.objects.create(tenant="a", body="one")
            child.objects.create(tenant="b", body="two")
            lifecycle.rotate()
            yield child

    def test_it_is_followed(self, child: Any) -> None:
        report = lifecycle.reencrypt(["testapp.TenantChild"])
        assert (report.rewritten, report.bad) == ({"testapp.TenantChild.body": 2}, [])
        keys = lifecycle.verify_data(["testapp.TenantChild"]).keys
        assert {meta.key_id for meta in keys} == {key_id("t-a"), key_id("t-b")}

    def test_what_has_moved_is_sealed_for_its_row(self, child: Any) -> None:
        child.objects.filter(tenant="a").update(tenant="A")
        assert lifecycle.reencrypt(["testapp.TenantChild"]).bad.total == 1
        report = lifecycle.reencrypt(["testapp.TenantChild"], options=Options(moved=True))
        assert (report.moved, report.bad) == ({"testapp.TenantChild.body": 1}, [])
        assert child.objects.get(tenant="A").body == "one"

    def test_a_row_that_moves_after_it_was_read_is_not_written_for_the_old_tenant(self, child: Any) -> None:
        reseal = child._meta.get_field("body").reseal
        before = execute("default", "SELECT body FROM testapp_tenantchild")

        def reseal_while_it_moves(*given: Any, **named: Any) -> Any:
            sealed = reseal(*given, **named)
            in_thread(lambda: child.objects.update(tenant="c"))
            return sealed

        child._meta.get_field("body").reseal = reseal_while_it_moves
        report = lifecycle.reencrypt(["testapp.TenantChild"])
        assert (report.rewritten.total(), report.conflicts, report.bad.total) == (0, 2, 2)
        assert execute("default", "SELECT body FROM testapp_tenantchild") == before


class TestUnusable:
    """The row says no partition."""

    @pytest.mark.parametrize(
        ("tenant", "reason"),
        [
            (None, "its partition 't-{tenant}' needs 'tenant', which is None: set it before the row is saved"),
            ("", "its partition 't-{tenant}' needs 'tenant', which is empty"),
            ("x" * 300, "of 302 characters makes a key id of 318 characters; the key table holds 255"),
        ],
    )
    def test_its_values_are_bad_and_say_why_and_the_others_are_seen_to(
        self, transactional_db: None, tenant: str | None, reason: str
    ) -> None:
        places = [{"tenant": "x"}, {"tenant": "y"}]
        kind = Kind("t-{tenant}", places, [], lambda: {"tenant": models.CharField(max_length=300, null=True)})
        with with_table(make_model(kind)) as model:
            fill(model, kind, rounds=1)
            execute("default", "UPDATE tenanted SET tenant = %s WHERE serial = 0", [tenant])
            before = execute("default", "SELECT body, code FROM tenanted WHERE serial = 0")
            lifecycle.rotate()
            verified = lifecycle.verify_data(["testapp.Tenanted"])
            assert (verified.bad.total, verified.columns) == (2, dict.fromkeys(COLUMNS, 1))
            for options in Options(), Options(moved=True), Options(all=True):
                report = lifecycle.reencrypt(["testapp.Tenanted"], options=options)
                assert report.bad.total == 2
                assert {bad.reason for bad in report.bad} == {bad.reason for bad in verified.bad}
                assert all(bad.reason.startswith("EncryptionError: ") and reason in bad.reason for bad in report.bad)
            assert model.objects.get(serial=1).code == "code 1"
            assert execute("default", "SELECT body, code FROM tenanted WHERE serial = 0") == before

    def test_the_keys_that_its_values_name_still_count_as_needed(self, transactional_db: None) -> None:
        kind = Kind(
            "t-{tenant}", [{"tenant": "x"}], [], lambda: {"tenant": models.CharField(max_length=300, null=True)}
        )
        with with_table(make_model(kind)) as model:
            fill(model, kind, rounds=1)
            execute("default", "UPDATE tenanted SET tenant = NULL")
            report = lifecycle.verify_data(["testapp.Tenanted"])
            assert report.bad.total == 2
            assert {meta.key_id: count for meta, count in report.keys.items()} == {key_id("t-x"): 2}
            assert report.system_keys.total() == 2
