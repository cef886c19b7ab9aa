"""Which records a session reads besides its own: those without a suffix, and those of other regions' suffixes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from django_asherah.envelope.files import FILE_START
from django_asherah.envelope.records import KeyMeta, decode_row, encode_row
from django_asherah.envelope.session import Session, SessionFactory
from django_asherah.exceptions import PartitionMismatchError
from tests.envelope.fakes import DAY, START, World

FORMATS = pytest.mark.parametrize("seal", [Session.encrypt, Session.encrypt_compact], ids=["json", "compact"])
Seal = Callable[[Session, bytes], Any]


def written(world: World, suffix: str, seal: Seal, partition: str = "p") -> Any:
    """Return a record that a process with this suffix has written."""
    return seal(world.new_process(key_suffix=suffix).get_session(partition), b"x")


def reader(world: World, suffix: str, *others: str) -> Session:
    return world.new_process(key_suffix=suffix, read_suffixes=others).get_session("p")


@FORMATS
@pytest.mark.parametrize(
    ("writes", "suffix", "others"),
    [
        ("", "", ()),
        ("", "eu", ()),
        ("", "eu", ("us",)),
        ("eu", "eu", ()),
        ("eu", "eu", ("eu",)),
        ("us", "eu", ("us",)),
        ("ap", "eu", ("us", "ap")),
        ("eu", "", ("eu",)),
        ("eu_west", "eu", ("eu_west",)),
    ],
)
def test_records_of_every_suffix_that_is_read_open(
    world: World, writes: str, suffix: str, others: tuple[str, ...], seal: Seal
) -> None:
    record, session = written(world, writes, seal), reader(world, suffix, *others)
    for _ in range(2):
        assert session.decrypt(record) == b"x"
    meta = session.read(record).key.parent_key_meta
    assert meta.key_id == f"_IK_p_svc_prod{'_' * bool(writes)}{writes}"
    assert decode_row(session.to_json(record)).key.parent_key_meta == meta


@FORMATS
@pytest.mark.parametrize(
    ("writes", "suffix", "others"),
    [
        ("eu", "", ()),
        ("us", "eu", ()),
        ("eu2", "eu", ()),
        ("eu_2", "eu", ()),
        ("e", "eu", ()),
        ("us2", "eu", ("us",)),
        ("us_eu", "eu", ("us",)),
        ("us", "", ("us_eu", "eu")),
    ],
)
def test_ids_are_compared_whole(world: World, writes: str, suffix: str, others: tuple[str, ...], seal: Seal) -> None:
    record, session = written(world, writes, seal), reader(world, suffix, *others)
    world.taken_calls()
    with pytest.raises(PartitionMismatchError):
        session.decrypt(record)
    assert world.taken_calls() == {}


def test_an_error_names_the_suffix_that_is_not_read(world: World) -> None:
    record = written(world, "us", Session.encrypt)
    with pytest.raises(PartitionMismatchError, match=r": if us is the suffix of another region, name it in READ_SUF"):
        reader(world, "eu").decrypt(record)


@FORMATS
@pytest.mark.parametrize(("service", "product"), [("svc", "prod2"), ("svc", "pro"), ("svc2", "prod"), ("svc", "eu")])
def test_another_services_or_products_record_is_refused(world: World, service: str, product: str, seal: Seal) -> None:
    record = seal(world.new_process(service, product).get_session("p"), b"x")
    with pytest.raises(PartitionMismatchError):
        reader(world, "eu", "us", "2").decrypt(record)


@FORMATS
def test_another_partitions_record_of_another_suffix_is_refused(world: World, seal: Seal) -> None:
    record = written(world, "us", seal, "q")
    with pytest.raises(PartitionMismatchError):
        reader(world, "eu", "us").decrypt(record)


@FORMATS
def test_keys_of_the_same_second_are_told_apart_by_their_ids(world: World, seal: Seal) -> None:
    records = {suffix: written(world, suffix, seal) for suffix in ("us", "", "eu")}
    session = reader(world, "eu", "us")
    own = seal(session, b"own")
    assert {session.read(record).key.parent_key_meta.created for record in [*records.values(), own]} == {START}
    for _ in range(2):
        assert [session.decrypt(record) for record in (own, *records.values())] == [b"own", b"x", b"x", b"x"]


@FORMATS
def test_writing_stays_under_the_own_id_and_reading_makes_no_key(world: World, seal: Seal) -> None:
    record = written(world, "", seal)
    keys = set(world.metastore.records)
    session = reader(world, "eu", "us")
    assert session.decrypt(record) == b"x"
    assert set(world.metastore.records) == keys
    assert session.read(seal(session, b"y")).key.parent_key_meta.key_id == "_IK_p_svc_prod_eu"
    assert {meta.key_id for meta in set(world.metastore.records) - keys} == {"_SK_svc_prod_eu", "_IK_p_svc_prod_eu"}


def test_a_key_of_another_suffix_seals_nothing_here(world: World) -> None:
    theirs = world.new_process(key_suffix="us").get_session("p").newest_key()
    with pytest.raises(PartitionMismatchError):
        reader(world, "eu", "us").encrypt(b"x", theirs)


@FORMATS
def test_keys_that_were_loaded_together_open_records_of_every_suffix(world: World, seal: Seal) -> None:
    records = [written(world, suffix, seal) for suffix in ("us", "", "eu")]
    factory = world.new_process(key_suffix="eu", read_suffixes=["us"])
    session = factory.get_session("p")
    metas = [session.read(record).key.parent_key_meta for record in records]
    loaded = factory.load_keys(metas)
    assert list(loaded) == metas
    world.taken_calls()
    assert [session.decrypt(record, loaded) for record in records] == [b"x"] * 3
    assert world.taken_calls() == {}


def test_a_file_of_another_suffix_opens(world: World) -> None:
    record, stream = world.new_process(key_suffix="us").get_session("p").start_file()
    sealed = stream.seal(0, b"content", last=True)
    assert reader(world, "eu", "us").open_file(record).open(0, sealed, last=True) == b"content"
    assert reader(world, "eu", "us").decrypt(record) == FILE_START
    with pytest.raises(PartitionMismatchError):
        reader(world, "eu").open_file(record)


@FORMATS
def test_an_expired_or_revoked_key_of_another_suffix_still_opens(world: World, seal: Seal) -> None:
    record = written(world, "us", seal)
    world.metastore.revoke(KeyMeta("_IK_p_svc_prod_us", START))
    world.clock.now = START + 1000 * DAY
    assert reader(world, "eu", "us").decrypt(record) == b"x"


def test_a_suffix_that_makes_ids_of_two_partitions_the_same_is_not_read(world: World) -> None:
    """In service a, product a, partition ``q_a`` without a suffix has the id of partition ``q`` with suffix ``a``."""
    factory = world.new_process("a", "a", key_suffix="a")
    assert factory.system_key_ids == ("_SK_a_a_a",)
    record = factory.get_session("q").encrypt(b"x")
    assert decode_row(record).key.parent_key_meta.key_id == "_IK_q_a_a_a"
    with pytest.raises(PartitionMismatchError):
        factory.get_session("q_a").decrypt(record)


class TestCollidingIds:
    """Service app, product pay, suffix eu, partition t1; and service pay, product eu, partition t1_app."""

    KEY_ID = "_IK_t1_app_pay_eu"

    def app(self, world: World, *others: str) -> SessionFactory:
        return world.new_process("app", "pay", key_suffix="eu", read_suffixes=others)

    def pay(self, world: World) -> SessionFactory:
        return world.new_process("pay", "eu")

    @pytest.fixture(params=["app first", "pay first"])
    def sides(self, world: World, request: pytest.FixtureRequest) -> tuple[Session, Session]:
        """The session of whose key it is, and the other's."""
        sessions = self.app(world).get_session("t1"), self.pay(world).get_session("t1_app")
        return sessions if request.param == "app first" else sessions[::-1]

    @FORMATS
    def test_the_others_record_is_refused(self, world: World, sides: tuple[Session, Session], seal: Seal) -> None:
        theirs, ours = sides
        record = seal(theirs, b"secret")
        assert theirs.read(record).key.parent_key_meta.key_id == self.KEY_ID
        with pytest.raises(PartitionMismatchError, match=r"another service or product") as caught:
            ours.decrypt(record)
        assert b"secret" not in str(caught.value).encode()
        assert f"intermediate key {self.KEY_ID}" in str(caught.value)

    @FORMATS
    def test_keys_loaded_together_do_not_hold_the_others(
        self, world: World, sides: tuple[Session, Session], seal: Seal
    ) -> None:
        theirs, _ = sides
        meta = theirs.read(seal(theirs, b"secret")).key.parent_key_meta
        counts = [len(factory.load_keys([meta])) for factory in (self.app(world), self.pay(world))]
        assert sorted(counts) == [0, 1]

    @FORMATS
    def test_new_writes_go_under_a_key_of_ones_own(
        self, world: World, sides: tuple[Session, Session], seal: Seal
    ) -> None:
        theirs, ours = sides
        records = [seal(theirs, b"theirs"), seal(ours, b"ours")]
        created = [theirs.read(record).key.parent_key_meta.created for record in records]
        assert [later - earlier for earlier, later in pairwise(created)] == [1]
        assert [theirs.decrypt(records[0]), ours.decrypt(records[1])] == [b"theirs", b"ours"]
        for session, record in ((theirs, records[1]), (ours, records[0])):
            with pytest.raises(PartitionMismatchError):
                session.decrypt(record)

    def test_the_same_for_keys_made_together(self, world: World) -> None:
        app, pay = self.app(world), self.pay(world)
        first, second = app.current_keys(["t1"])["t1"], pay.current_keys(["t1_app", "z"])["t1_app"]
        assert second.meta == KeyMeta(self.KEY_ID, first.meta.created + 1)
        assert second.record.parent_key_meta == KeyMeta("_SK_pay_eu", START)

    def test_reading_suffixes_opens_no_other_services_key(self, world: World) -> None:
        record = self.pay(world).get_session("t1_app").encrypt(b"secret")
        with pytest.raises(PartitionMismatchError):
            self.app(world, "us", "pay", "app").get_session("t1").decrypt(record)


@FORMATS
def test_a_row_that_the_rust_sdk_has_put_under_another_regions_id_opens(world: World, seal: Seal) -> None:
    """It stores the key that it found under the id that a record names, where no such row is."""
    factory = world.new_process(key_suffix="us")
    record = seal(factory.get_session("p"), b"x")
    healed, found = KeyMeta("_IK_p_svc_prod_eu", START), KeyMeta("_IK_p_svc_prod_us", START)
    world.metastore.records[healed] = world.metastore.records[found]
    session = reader(world, "eu", "us")
    row = decode_row(session.to_json(record))
    named = msgspec.structs.replace(row, key=msgspec.structs.replace(row.key, parent_key_meta=healed))
    assert session.decrypt(encode_row(named)) == b"x"
    with pytest.raises(PartitionMismatchError, match="name its suffix in READ_SUFFIXES"):
        reader(world, "eu").decrypt(encode_row(named))
