"""Columns whose partition the row says: in from plaintext and back, and from a partition that is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, connections, models
from django.db.migrations import AlterField
from django.db.migrations.state import ProjectState

from django_asherah import engine, lifecycle
from django_asherah.exceptions import DecryptionError, EncryptionError
from django_asherah.fields import EncryptedJSONField, EncryptedTextField
from django_asherah.lifecycle.conversion import encrypt_column
from django_asherah.lifecycle.reencryption import Options
from tests.conversion.conftest import Table
from tests.conversion.test_encrypt import RECORD, encrypted
from tests.databases import execute
from tests.lifecycle.conftest import Run
from tests.lifecycle.tenants import KINDS, Kind, fill, forget_model, intact, key_id, make_model, texts, with_table

pytestmark = pytest.mark.django_db(transaction=True)

Make = Callable[..., Table]

TEMPLATE = "clinic-{tenant}"


def columns(**options: Any) -> dict[str, Any]:
    return {"id": models.BigAutoField(primary_key=True), "tenant": models.CharField(max_length=20, **options)}


def fill_table(table: Table, *tenants: str | None) -> list[Any]:
    """Save a row for each of these tenants, its value the number of the row."""
    manager = table.model.objects.using(table.alias)
    return [manager.create(tenant=tenant, secret=str(number)) for number, tenant in enumerate(tenants)]


def opened(tenant: str, raw: str) -> bytes:
    return engine.get_session(f"clinic-{tenant}").decrypt(raw)


def place(table: Table, row: Any, tenant: str | None) -> None:
    """Move a row behind everybody's back."""
    execute(table.alias, "UPDATE moved_thing SET tenant = %s WHERE id = %s", [tenant, row.pk])


@contextmanager
def moving(table: Table, row: Any, tenant: str) -> Iterator[None]:
    """Move a row right before the first statement that writes its value."""
    moves = [tenant]

    def move_first(execute_it: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and "secret" in sql and moves:
            place(table, row, moves.pop())
        return execute_it(sql, params, many, context)

    with connections[table.alias].execute_wrapper(move_first):
        yield
    assert not moves


class TestEncrypt:
    def test_each_value_gets_its_rows_key_and_comes_back(self, make_table: Make) -> None:
        table = make_table(models.TextField(), columns())
        fill_table(table, "a", "b", "a", "A")
        table.encrypt(EncryptedTextField(partition=TEMPLATE))
        raws = table.raw()
        assert [opened(tenant, raw) for tenant, raw in zip("abaA", raws, strict=True)] == [b"0", b"1", b"2", b"3"]
        assert [row.secret for row in table.model.objects.using(table.alias).order_by("pk")] == ["0", "1", "2", "3"]
        table.decrypt(models.TextField())
        assert table.raw() == ["0", "1", "2", "3"]

    def test_two_columns_and_json(self, make_table: Make) -> None:
        own = {**columns(), "ward": models.IntegerField()}
        table = make_table(models.JSONField(), own)
        manager = table.model.objects.using(table.alias)
        manager.create(tenant="a", ward=1, secret={"n": 1})
        manager.create(tenant="a", ward=2, secret=[])
        table.encrypt(EncryptedJSONField(partition="{tenant}/{ward}"))
        session = engine.get_session
        assert [session(f"a/{ward}").decrypt(raw) for ward, raw in zip((1, 2), table.raw(), strict=True)] == [
            b'{"n": 1}',
            b"[]",
        ]

    def test_a_composite_key_that_names_the_tenant(self, make_table: Make) -> None:
        own = {
            "pk": models.CompositePrimaryKey("tenant", "number"),
            "tenant": models.CharField(max_length=20),
            "number": models.IntegerField(),
        }
        table = make_table(models.TextField(), own)
        for tenant in "ab":
            table.model.objects.using(table.alias).create(tenant=tenant, number=1, secret=tenant)
        table.encrypt(EncryptedTextField(partition=TEMPLATE))
        assert [opened(tenant, raw) for tenant, raw in zip("ab", table.raw(), strict=True)] == [b"a", b"b"]
        table.decrypt(models.TextField())
        assert table.raw() == ["a", "b"]

    @pytest.mark.parametrize(("tenant", "reason"), [(None, "which is None"), ("", "which is empty")])
    def test_a_row_without_a_tenant_is_left_and_named_and_can_be_done_later(
        self, make_table: Make, tenant: str | None, reason: str
    ) -> None:
        table = make_table(models.TextField(), columns(null=True))
        rows = fill_table(table, "a", tenant, "b")
        with pytest.raises(EncryptionError) as caught:
            table.encrypt(EncryptedTextField(partition=TEMPLATE))
        assert "moved.Thing.secret: 1 values could not be encrypted and are left as they were" in str(caught.value)
        assert f"pk={rows[1].pk}: its partition 'clinic-{{tenant}}' needs 'tenant', {reason}" in str(caught.value)
        assert table.raw()[1] == "1"
        assert [opened(name, raw) for name, raw in zip("ab", table.raw()[::2], strict=True)] == [b"0", b"2"]
        place(table, rows[1], "c")
        table.encrypt(EncryptedTextField(partition=TEMPLATE))
        assert opened("c", table.raw()[1]) == b"1"

    def test_a_row_that_moves_after_it_was_read_gets_its_new_tenants_key(self, make_table: Make) -> None:
        table = make_table(models.TextField(), columns())
        (row,) = fill_table(table, "a")
        table.state = encrypted(table, partition=TEMPLATE)
        with moving(table, row, "b"):
            assert encrypt_column(table.column) == 1
        assert opened("b", table.raw()[0]) == b"0"

    def test_a_row_that_moves_after_its_value_was_encrypted_gets_its_new_tenants_key(self, make_table: Make) -> None:
        table = make_table(models.TextField(), columns())
        rows = fill_table(table, "a", "a")
        table.state = encrypted(table, partition=TEMPLATE)
        assert encrypt_column(table.column, lambda count: place(table, rows[1], "b")) == 3
        assert [opened(tenant, raw) for tenant, raw in zip("ab", table.raw(), strict=True)] == [b"0", b"1"]

    def test_one_that_has_no_tenant_any_more_by_then_is_left_and_named(self, make_table: Make) -> None:
        table = make_table(models.TextField(), columns(null=True))
        rows = fill_table(table, "a", "a")
        table.state = encrypted(table, partition=TEMPLATE)
        with pytest.raises(EncryptionError, match=rf"pk={rows[1].pk}: its partition .* needs 'tenant', which is None"):
            encrypt_column(table.column, lambda count: place(table, rows[1], None))
        assert opened("a", table.raw()[1]) == b"1"

    @pytest.mark.parametrize("writer", ["a", "elsewhere"])
    def test_a_record_of_any_tenant_is_neither_taken_nor_sealed_again(self, make_table: Make, writer: str) -> None:
        table = make_table(models.TextField(), columns())
        (row,) = fill_table(table, "a")
        record = engine.get_session(f"clinic-{writer}").encrypt(b"x")
        table.set_raw(row, record)
        whose = "this very partition" if writer == "a" else "partition 'clinic-elsewhere'"
        with pytest.raises(EncryptionError, match=f"pk={row.pk}: it is a record of {whose} already"):
            table.encrypt(EncryptedTextField(partition=TEMPLATE))
        assert table.raw() == [record]

    def test_what_only_looks_like_one_is_a_value(self, make_table: Make) -> None:
        table = make_table(models.TextField(), columns())
        (row,) = fill_table(table, "a")
        table.set_raw(row, RECORD)
        table.encrypt(EncryptedTextField(partition=TEMPLATE))
        assert opened("a", table.raw()[0]) == RECORD.encode()

    def test_with_allow_plaintext_a_record_that_the_running_code_wrote_before_a_move_is_named(
        self, make_table: Make
    ) -> None:
        table = make_table(models.TextField(), columns())
        rows = fill_table(table, "a", "a")
        for row in rows:
            table.set_raw(row, engine.get_session("clinic-a").encrypt(b"x"))
        place(table, rows[1], "b")
        with pytest.raises(EncryptionError) as caught:
            table.encrypt(EncryptedTextField(partition=TEMPLATE, allow_plaintext=True))
        assert f"pk={rows[1].pk}: the record is of partition 'clinic-a', but the row says 'clinic-b'" in str(
            caught.value
        )
        assert f"pk={rows[0].pk}: " not in str(caught.value)
        assert opened("a", table.raw()[1]) == b"x"


class TestDecrypt:
    @pytest.fixture
    def table(self, make_table: Make) -> Table:
        return make_table(EncryptedTextField(partition=TEMPLATE), columns(null=True))

    @pytest.mark.parametrize(
        ("tenant", "reason"),
        [
            ("b", "the record is of partition 'clinic-a', but the row says 'clinic-b'"),
            (None, "its partition 'clinic-{tenant}' needs 'tenant', which is None"),
        ],
    )
    def test_a_record_that_is_not_its_rows_is_left_and_named(self, table: Table, tenant: str, reason: str) -> None:
        rows = fill_table(table, "a", "a")
        place(table, rows[1], tenant)
        with pytest.raises(DecryptionError) as caught:
            table.decrypt(models.TextField())
        assert "1 values could not be decrypted and are left as they were; all others are done" in str(caught.value)
        assert f"pk={rows[1].pk}: {reason}" in str(caught.value)
        assert (table.raw()[0], opened("a", table.raw()[1])) == ("0", b"1")
        place(table, rows[1], "a")
        table.decrypt(models.TextField())
        assert table.raw() == ["0", "1"]

    def test_a_row_that_moves_after_it_was_read_is_not_decrypted_for_the_old_tenant(self, table: Table) -> None:
        (row,) = fill_table(table, "a")
        with moving(table, row, "b"), pytest.raises(DecryptionError, match="the row says 'clinic-b'"):
            table.decrypt(models.TextField())
        assert opened("a", table.raw()[0]) == b"0"


class TestFromOnePartition:
    """From a partition that is the same for every row to one that the row says, and back: what existing users do."""

    @pytest.fixture(params=["integer", "uuid", "text", "two", "composite"])
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return KINDS[request.param]

    @pytest.fixture
    def model(self, transactional_db: None, kind: Kind) -> Iterator[Any]:
        with with_table(make_model(kind, "default")) as model:
            fill(model, kind)
            yield model

    def test_the_migration_changes_no_column_and_re_encrypting_moves_every_value(self, model: Any, kind: Kind) -> None:
        run = Run()
        count = model.objects.count()
        before = stored()
        after = deploy(model, kind, kind.template)
        assert stored() == before

        assert run("asherah_verify", "--data", "testapp.Tenanted")["summary"]["bad"] == 2 * count
        assert run("asherah_reencrypt", "testapp.Tenanted")["summary"]["bad"] == 2 * count
        assert stored() == before
        document = run("asherah_reencrypt", "testapp.Tenanted", "--moved")
        assert (document["code"], document["summary"]["moved"]) == (
            0,
            {"testapp.Tenanted.body": count, "testapp.Tenanted.code": count},
        )
        assert texts(after) == intact(count)
        assert needed() == {key_id(partition) for partition in kind.partitions}

        back = deploy(after, kind, "default")
        document = run("asherah_reencrypt", "testapp.Tenanted", "--moved")
        assert (document["code"], texts(back), needed()) == (0, intact(count), {key_id("default")})

    def test_an_interruption_is_resumed(self, model: Any, kind: Kind) -> None:
        count = model.objects.count()
        after = deploy(model, kind, kind.template)
        seen: list[int] = []

        def interrupt(done: int) -> None:
            seen.append(done)
            if len(seen) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lifecycle.reencrypt(["testapp.Tenanted"], options=Options(moved=True, batch=1), progress=interrupt)
        report = lifecycle.reencrypt(["testapp.Tenanted"], options=Options(moved=True, batch=1))
        assert (report.current.total(), report.moved.total(), report.bad) == (2, 2 * count - 2, [])
        assert texts(after) == intact(count)


def stored() -> list[tuple[Any, ...]]:
    return execute("default", "SELECT body, code FROM tenanted ORDER BY serial")


def needed() -> set[str]:
    report = lifecycle.verify_data(["testapp.Tenanted"])
    assert report.bad == []
    return {meta.key_id for meta in report.keys}


def deploy(model: Any, kind: Kind, partition: str) -> Any:
    """Migrate to another partition with Django's own AlterField, and return the model that the new code has."""
    state = ProjectState.from_apps(apps)
    for name in ("body", "code"):
        _, _, _, options = model._meta.get_field(name).deconstruct()
        operation = AlterField("tenanted", name, EncryptedTextField(**{**options, "partition": partition}))
        after = state.clone()
        operation.state_forwards("testapp", after)
        with connection.schema_editor() as editor:
            operation.database_forwards("testapp", editor, state, after)
        state = after
    forget_model(model)
    return make_model(kind, partition)
