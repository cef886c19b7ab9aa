"""partition_guard: a session of a partition that it doesn't allow is refused, and nothing else changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage
from django.db import transaction

from django_asherah import engine
from django_asherah.exceptions import AsherahError, PartitionMismatchError
from django_asherah.guard import allowed_partitions, partition_guard
from django_asherah.storage import EncryptedStorage
from tests.databases import as_asherah
from tests.testapp.models import Clinic, Note, Patient, Tenancy

LEFT = (
    "partition 'left' is outside the active partition guard, which allows 'clinic-7': "
    "the query lacks its tenant filter, or the guard is the wrong one"
)


@pytest.fixture(autouse=True)
def _keys_in_memory(settings: Any) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")


def refusal(partition: str | None) -> str:
    """Return how a session of the partition is refused here; "" if it is not."""
    try:
        engine.get_session(partition)
    except PartitionMismatchError as error:
        return str(error)
    return ""


class TestSessions:
    def test_of_the_guards_partitions_are_given_and_of_any_other_refused(self) -> None:
        with partition_guard("clinic-7"):
            session = engine.get_session("clinic-7")
            assert session.decrypt(session.encrypt(b"x")) == b"x"
            assert refusal("left") == LEFT
        assert refusal("left") == ""

    def test_that_were_used_before_are_refused_too(self) -> None:
        engine.get_session("left").encrypt(b"x")
        with partition_guard("clinic-7"):
            assert refusal("left") == LEFT

    def test_of_the_settings_partition_are_not_allowed_by_themselves(self) -> None:
        with partition_guard("clinic-7"):
            assert refusal(None).startswith("partition 'default' is outside the active partition guard, which allows ")
        with partition_guard("clinic-7", "default"):
            assert refusal(None) == ""

    def test_the_guard_is_never_the_source_of_a_partition(self) -> None:
        with partition_guard("clinic-7", "default"):
            assert engine.get_session().partition.partition_id == "default"

    def test_a_guard_of_nothing_allows_nothing(self) -> None:
        with partition_guard():
            assert "which allows none: " in refusal("clinic-7")

    def test_a_refusal_lists_five_partitions_of_many(self) -> None:
        with partition_guard(*(f"clinic-{number}" for number in range(9))):
            assert "'clinic-0', 'clinic-1', 'clinic-2', 'clinic-3', 'clinic-4' and 4 more: " in refusal("left")

    def test_partitions_are_compared_as_they_are_written(self) -> None:
        with partition_guard("Clinic", "clinic_"):
            assert all(refusal(name) for name in ("clinic", "CLINIC", "Clinic ", "clinic_a"))

    def test_the_guard_ends_with_an_error(self) -> None:
        with pytest.raises(ZeroDivisionError), partition_guard("clinic-7"):
            raise ZeroDivisionError
        assert refusal("left") == ""

    @pytest.mark.parametrize("partition", [7, None, b"clinic-7", ["clinic-7"]])
    def test_a_partition_that_is_no_text_is_an_error(self, partition: Any) -> None:
        with pytest.raises(TypeError, match=f"must be a str, not {type(partition).__name__}$"):
            partition_guard("clinic-7", partition)


class TestNesting:
    def test_an_inner_guard_narrows_and_the_outer_one_comes_back(self) -> None:
        with partition_guard("clinic-7", "left"):
            with partition_guard("clinic-7"):
                assert refusal("left") == LEFT
            assert refusal("left") == ""
            with partition_guard("left", "clinic-7"):
                assert refusal("left") == ""

    @pytest.mark.parametrize("wider", [("right",), ("left", "right")])
    def test_an_inner_guard_never_widens(self, wider: tuple[str, ...]) -> None:
        names = ", ".join(map(repr, wider))
        with partition_guard("left", "middle"):
            with (
                pytest.raises(
                    PartitionMismatchError,
                    match=rf"^a partition guard of {names} would widen the one around it, of 'left', 'middle': ",
                ),
                partition_guard(*wider),
            ):
                pass
            assert (refusal("left"), refusal("right") != "") == ("", True)

    def test_a_guard_can_be_used_again_but_not_in_itself(self) -> None:
        guard = partition_guard("clinic-7")
        for _ in range(2):
            with guard:
                assert refusal("left") == LEFT
                with pytest.raises(RuntimeError, match="active already"), guard:
                    pass
                assert refusal("left") == LEFT
            assert refusal("left") == ""


class TestDecorator:
    def test_guards_each_call_of_a_function(self) -> None:
        @partition_guard("clinic-7")
        def look(depth: int) -> list[str]:
            """Look."""
            return [refusal("left"), *(look(depth - 1) if depth else [])]

        assert look(2) == [LEFT] * 3
        assert (look.__name__, look.__doc__) == ("look", "Look.")
        assert refusal("left") == ""

    async def look_by_turns(self, look: Any) -> list[str]:
        return list(await asyncio.gather(look(), look()))

    def test_guards_an_async_function_while_it_runs(self) -> None:
        @partition_guard("clinic-7")
        async def look() -> str:
            await asyncio.sleep(0)
            return refusal("left")

        assert asyncio.run(self.look_by_turns(look)) == [LEFT, LEFT]

    def test_refuses_generators_which_run_elsewhere(self) -> None:
        def numbers() -> Iterator[int]:
            yield 1

        async def async_numbers() -> AsyncIterator[int]:
            yield 1

        for function in (numbers, async_numbers):
            with pytest.raises(TypeError, match=rf"{function.__name__} is a generator"):
                partition_guard("clinic-7")(function)


class TestAsync:
    def test_concurrent_tasks_have_guards_of_their_own(self) -> None:
        async def work(mine: str, other: str, turns: asyncio.Barrier) -> tuple[str, bool]:
            with partition_guard(mine):
                await turns.wait()
                seen = refusal(mine), refusal(other) != ""
                await turns.wait()
            return seen

        async def both() -> list[tuple[str, bool]]:
            turns = asyncio.Barrier(3)
            watch = asyncio.gather(work("a", "b", turns), work("b", "a", turns))
            await turns.wait()
            assert (refusal("a"), refusal("b")) == ("", "")
            await turns.wait()
            return await watch

        assert asyncio.run(both()) == [("", True), ("", True)]

    def test_tasks_that_are_started_under_a_guard_keep_it(self) -> None:
        async def look() -> str:
            await asyncio.sleep(0)
            return refusal("left")

        async def work() -> str:
            with partition_guard("clinic-7"):
                task = asyncio.create_task(look())
            return await task

        assert asyncio.run(work()) == LEFT

    @pytest.mark.parametrize("is_sensitive", [True, False])
    def test_sync_to_async_and_async_to_sync_carry_it(self, is_sensitive: bool) -> None:
        async def look() -> str:
            return await sync_to_async(refusal, thread_sensitive=is_sensitive)("left")

        with partition_guard("clinic-7"):
            assert async_to_sync(look)() == LEFT
        assert async_to_sync(look)() == ""


class TestThreads:
    def test_that_are_started_by_hand_have_no_guard(self) -> None:
        seen: list[Any] = []
        with partition_guard("clinic-7"):
            thread = threading.Thread(target=lambda: seen.append(allowed_partitions.get()))
            thread.start()
            thread.join()
            assert refusal("left") == LEFT
        assert seen == [None]


@pytest.mark.django_db
class TestFields:
    """Columns of partitions left and right."""

    def test_read_and_write_under_their_partitions_guard(self) -> None:
        with partition_guard("left"):
            row = Tenancy.objects.create(left="x", doc={"a": 1})
            row = Tenancy.objects.get(pk=row.pk)
            assert (row.left, row.doc) == ("x", {"a": 1})
            row.left = "y"
            row.save()
            assert list(Tenancy.objects.values_list("left", flat=True)) == ["y"]

    def test_of_another_partition_are_not_read(self) -> None:
        Tenancy.objects.create(left="x", right="secret")
        with (
            partition_guard("left"),
            pytest.raises(PartitionMismatchError, match=r"^testapp\.Tenancy\.right\b.* outside .* allows 'left': "),
        ):
            Tenancy.objects.get().right
        for read in (
            lambda: list(Tenancy.objects.values_list("right", flat=True)),
            lambda: [row.right for row in Tenancy.objects.iterator()],
            lambda: Tenancy.objects.only("right").get().right,
            lambda: Tenancy.objects.values("right").get(),
        ):
            with partition_guard("left"), pytest.raises(PartitionMismatchError):
                read()
            with partition_guard("left", "right"):
                assert "secret" in str(read())

    def test_of_another_partition_are_not_written(self) -> None:
        row = Tenancy.objects.create(left="x", right="before")
        ways: list[Any] = [
            lambda: Tenancy.objects.create(right="after"),
            lambda: Tenancy.objects.bulk_create([Tenancy(right="after")]),
            lambda: Tenancy.objects.filter(pk=row.pk).update(right="after"),
            lambda: Tenancy(pk=row.pk, right="after").save(update_fields=["right"]),
        ]
        for way in ways:
            with (
                partition_guard("left"),
                pytest.raises(PartitionMismatchError, match=r"^testapp\.Tenancy\.right\b.*: "),
                transaction.atomic(),
            ):
                way()
        assert [row.right for row in Tenancy.objects.all()] == ["before"]

    def test_rows_of_which_nothing_is_read_are_not_refused(self) -> None:
        Tenancy.objects.create(right="secret", plain="open")
        with partition_guard("left"):
            assert list(Tenancy.objects.values_list("plain", flat=True)) == ["open"]
            assert Tenancy.objects.filter(right__isnull=False).count() == 1

    def test_a_row_is_not_refused_for_a_column_that_is_not_read(self) -> None:
        Tenancy.objects.create(left="x", right="secret")
        with partition_guard("left"):
            row = Tenancy.objects.get()
            assert row.left == "x"
        assert row.right == "secret"

    def test_a_row_that_was_loaded_before_the_guard_is_not_opened_under_it(self) -> None:
        Tenancy.objects.create(right="secret")
        row = Tenancy.objects.get()
        with partition_guard("left"), pytest.raises(PartitionMismatchError, match=r"^testapp\.Tenancy\.right pk="):
            row.right
        assert row.right == "secret"

    @pytest.mark.parametrize("column", ["body", "other_body"])
    def test_with_async_queries(self, column: str) -> None:
        async def write_and_read(partition: str) -> str:
            with partition_guard(partition):
                row = await Note.objects.acreate(**{column: "x"})
                return str(getattr(await Note.objects.aget(pk=row.pk), column))

        assert async_to_sync(write_and_read)("default") == "x"
        with pytest.raises(PartitionMismatchError, match=r"^testapp\.Note\."):
            async_to_sync(write_and_read)("clinic-7")


@pytest.mark.django_db
class TestPartitionsOfRows:
    """Columns whose partition the row says."""

    @pytest.fixture
    def rows(self) -> tuple[Patient, Patient]:
        for number in (7, 8):
            Clinic.objects.create(pk=number)
        seven, eight = (Patient.objects.create(clinic_id=number, ssn=f"ssn {number}") for number in (7, 8))
        return seven, eight

    def test_a_query_without_its_tenant_filter_is_found_where_the_row_says_it_is_right(
        self, rows: tuple[Patient, Patient]
    ) -> None:
        with partition_guard("clinic-7"):
            seven, eight = Patient.objects.order_by("clinic_id")
            assert seven.ssn == "ssn 7"
            with pytest.raises(
                PartitionMismatchError, match=r"^testapp\.\w+\.ssn pk=\w+: partition 'clinic-8' is outside"
            ):
                eight.ssn
            with pytest.raises(PartitionMismatchError):
                list(Patient.objects.values("clinic_id", "ssn"))
            assert list(Patient.objects.filter(clinic_id=7).values_list("clinic_id", "ssn")) == [(7, "ssn 7")]

    def test_a_row_is_neither_made_for_another_tenant_nor_moved_to_one(self, rows: tuple[Patient, Patient]) -> None:
        seven, eight = rows
        seven.clinic_id = 8
        for write in (
            lambda: Patient.objects.create(clinic_id=8, ssn="x"),
            lambda: Patient.objects.bulk_create([Patient(clinic_id=7, ssn="x"), Patient(clinic_id=8, ssn="x")]),
            seven.save,
            lambda: move(Patient.objects.get(pk=eight.pk)),
        ):
            with partition_guard("clinic-7"), pytest.raises(PartitionMismatchError), transaction.atomic():
                write()
        stored = Patient.objects.order_by("clinic_id").values_list("clinic_id", "ssn")
        assert list(stored) == [(7, "ssn 7"), (8, "ssn 8")]


def move(row: Patient) -> None:
    """Move a row that was not read from clinic 8 to clinic 7: its values would be opened under the key of clinic 8."""
    row.clinic_id = 7
    row.save()


class TestFiles:
    def test_of_another_partition_are_neither_saved_nor_opened(self) -> None:
        inner = InMemoryStorage()
        storage = EncryptedStorage(inner, partition="left")
        with partition_guard("left"):
            storage.save("x", ContentFile(b"secret"))
            assert storage.open("x").read() == b"secret"
        with partition_guard("clinic-7"):
            with pytest.raises(PartitionMismatchError) as opening:
                storage.open("x")
            with pytest.raises(PartitionMismatchError) as saving:
                storage.save("y", ContentFile(b"secret"))
        assert (str(opening.value), str(saving.value)) == (f"file 'x': {LEFT}", f"file 'y': {LEFT}")
        assert inner.listdir("")[1] == ["x"]


def test_the_refusal_is_one_of_ours() -> None:
    with partition_guard("clinic-7"), pytest.raises(AsherahError):
        engine.get_session("left")
