"""Several at once: the first values of a tenant, and a row that one moves while another saves it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connection, transaction

from django_asherah import engine
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR, in_thread, run_django, url_of
from tests.testapp.tenants import Member

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite in memory is one connection's"),
]


def together(*work: Callable[[], Any]) -> list[Any]:
    """Run all at the same time, each in a thread of its own; return what they return."""
    barrier = threading.Barrier(len(work))
    found: list[Any] = [None] * len(work)

    def run(n: int) -> None:
        def start() -> Any:
            barrier.wait(timeout=30)
            return work[n]()

        found[n] = in_thread(start)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


def keys_of(tenant: str) -> int:
    return EncryptionKey.objects.filter(key_id=f"_IK_member-{tenant}_suite_tests").count()


class TestFirstValues:
    def test_eight_threads_make_one_key(self) -> None:
        engine.reset()
        together(
            *(lambda n=n: Member.objects.create(tenant="new", name=str(n), secret=f"s{n}").pk for n in range(8))  # type: ignore[misc]
        )
        assert keys_of("new") == 1
        engine.reset()
        assert [row.secret for row in Member.objects.order_by("name")] == [f"s{n}" for n in range(8)]

    def test_eight_threads_make_one_key_for_each_of_many_tenants(self) -> None:
        tenants = [f"t{n}" for n in range(10)]

        def insert(n: int) -> None:
            order = tenants if n % 2 else tenants[::-1]
            Member.objects.bulk_create([Member(tenant=t, name=f"{n}{t}", secret=f"s{n}{t}") for t in order])

        engine.reset()
        together(*(lambda n=n: insert(n) for n in range(8)))  # type: ignore[misc]
        assert [keys_of(tenant) for tenant in tenants] == [1] * 10
        engine.reset()
        found = list(Member.objects.all())
        assert len(found) == 80
        assert all(row.secret == f"s{row.name}" for row in found)

    @pytest.mark.slow
    def test_two_processes(self) -> None:
        code = (
            "from tests.testapp.tenants import Member\n"
            "Member.objects.bulk_create("
            "[Member(tenant=f't{n}', name=sys.argv[1] + str(n), secret=sys.argv[1]) for n in range(20)])"
        )
        url = url_of("default")
        threads = [threading.Thread(target=run_django, args=(code, url, name)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert [keys_of(f"t{n}") for n in range(20)] == [1] * 20
        engine.reset()
        assert sorted(row.secret or "" for row in Member.objects.all()) == ["a"] * 20 + ["b"] * 20


class TestMoves:
    @pytest.fixture
    def member(self) -> Member:
        return Member.objects.create(tenant="a", name="1", secret="s", spare="t", photo=b"p")

    def move(self, tenant: str) -> None:
        row = Member.objects.get()
        row.tenant = tenant
        row.save()

    @pytest.mark.parametrize("is_read", [True, False])
    def test_who_saves_the_whole_row_later_moves_it_back(self, member: Member, is_read: bool) -> None:
        row = Member.objects.get()
        if is_read:
            assert row.secret == "s"
        in_thread(lambda: self.move("b"))
        row.save()
        loaded = Member.objects.get()
        assert (loaded.tenant, loaded.secret, loaded.spare, loaded.photo) == ("a", "s", "t", b"p")

    def test_who_saves_one_value_of_a_row_that_was_moved_is_refused(self, member: Member) -> None:
        row = Member.objects.get()
        in_thread(lambda: self.move("b"))
        row.secret = "new"
        with pytest.raises(FieldError, match=r"^testapp\.Member\.secret: 'tenant' has changed"):
            row.save(update_fields=["secret"])
        loaded = Member.objects.get()
        assert (loaded.tenant, loaded.secret, loaded.spare, loaded.photo) == ("b", "s", "t", b"p")

    def test_who_locks_the_row_waits_and_finds_it_moved(self, member: Member) -> None:
        def change() -> None:
            with transaction.atomic():
                row = Member.objects.select_for_update().get()
                row.secret = f"{row.secret}+"
                row.save(update_fields=["secret"])

        def move() -> None:
            with transaction.atomic():
                row = Member.objects.select_for_update().get()
                row.tenant += "x"
                row.save()

        together(change, move, change, move, change, move)
        loaded = Member.objects.get()
        assert (loaded.tenant, loaded.secret, loaded.photo) == ("axxx", "s+++", b"p")

    def test_many_moves_at_once_leave_a_whole_row(self, member: Member) -> None:
        together(*(lambda n=n: self.move(f"t{n}") for n in range(6)))  # type: ignore[misc]
        loaded = Member.objects.get()
        assert loaded.tenant in {f"t{n}" for n in range(6)}
        assert (loaded.secret, loaded.spare, loaded.photo) == ("s", "t", b"p")
        assert connection.in_atomic_block is False

    def test_refreshing_follows_the_row(self, member: Member) -> None:
        row, late = Member.objects.get(), Member.objects.defer("secret", "photo").get()
        in_thread(lambda: self.move("b"))
        row.refresh_from_db()
        assert (row.tenant, row.secret, row.photo) == ("b", "s", b"p")
        late.refresh_from_db()
        assert (late.tenant, late.secret, late.photo) == ("b", "s", b"p")
