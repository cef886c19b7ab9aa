"""The AWS KMS over real moto servers, one a region."""

from __future__ import annotations

import json
import logging
import os
import threading
from contextlib import ExitStack
from typing import Any, ClassVar
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import KMSCalled, RegionFailed
from django_asherah.exceptions import InvalidRecordError, KMSError
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.health import LastAnswer
from django_asherah.kms.kek import decode_wrapped
from tests.forking import Fork, either_fork, in_child
from tests.kms.conftest import Kit
from tests.moto_servers import ACCESS, answering, dripping, failing_as, moto_region, refused_url, stalled

pytestmark = pytest.mark.slow

KEY = bytes(range(32))
WEST, EAST = "us-west-2", "us-east-1"


SHORT = {"connect_timeout": 2.0, "read_timeout": 0.5}


def failures(kit: Kit) -> list[RegionFailed]:
    return [event for event in kit.events if isinstance(event, RegionFailed)]


def failed(kit: Kit) -> list[tuple[str, str]]:
    return [(event.region, event.operation) for event in failures(kit)]


def failing(kms: AwsKMS) -> set[str]:
    return {region for region, answer in kms.last_answers().items() if not answer.ok}


def test_a_key_is_wrapped_for_every_region_and_comes_back(kit: Kit) -> None:
    kms = kit.kms()
    wrapped = kms.encrypt_key(KEY)
    assert kms.decrypt_key(wrapped) == KEY
    assert kms.regions_of(wrapped) == {WEST: kit.servers[WEST].arn, EAST: kit.servers[EAST].arn}
    assert failed(kit) == []


def test_every_call_of_a_region_is_told_with_its_outcome(kit: Kit) -> None:
    with failing_as("AccessDeniedException") as east:
        kms = kit.kms({EAST: east.url})
        kms.decrypt_key(kms.encrypt_key(KEY))
    calls = [event for event in kit.events if isinstance(event, KMSCalled)]
    assert calls == [
        KMSCalled(WEST, "GenerateDataKey", 0.0, None),
        KMSCalled(WEST, "Decrypt", 0.0, None),
        KMSCalled(EAST, "Encrypt", 0.0, "AccessDeniedException"),
        KMSCalled(WEST, "Decrypt", 0.0, None),
    ]


def test_calls_are_told_in_the_callers_thread(kit: Kit) -> None:
    """Whoever listens may encrypt, and would wait for ever for a key's lock that the caller holds in another thread."""
    threads: list[tuple[str, int]] = []
    kms = kit.kms(on_event=lambda event: threads.append((event.operation, threading.get_ident())))
    kms.encrypt_key(KEY)
    calls = ["GenerateDataKey", "Decrypt", "Encrypt", "Decrypt"]
    assert threads == [(operation, threading.get_ident()) for operation in calls]


def test_a_call_that_gets_no_answer_is_told_with_the_class_of_its_error(kit: Kit) -> None:
    with pytest.raises(KMSError):
        kit.kms({EAST: refused_url()}).check_region(EAST)
    assert kit.events[0] == KMSCalled(EAST, "DescribeKey", 0.0, "EndpointConnectionError")


def test_a_call_that_is_tried_again_is_told_twice(kit: Kit) -> None:
    with failing_as("ThrottlingException") as east, pytest.raises(KMSError):
        kit.kms({EAST: east.url}).check_region(EAST)
    assert kit.events == [KMSCalled(EAST, "DescribeKey", 0.0, "ThrottlingException")] * 2


def test_the_wrapped_key_has_exactly_the_members_that_the_sdks_read(kit: Kit) -> None:
    document = json.loads(kit.kms().encrypt_key(KEY))
    assert list(document) == ["encryptedKey", "kmsKeks"]
    assert [list(kek) for kek in document["kmsKeks"]] == [["region", "arn", "encryptedKek"]] * 2


@pytest.mark.parametrize("region", [WEST, EAST])
def test_each_region_alone_suffices(kit: Kit, region: str) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    other = EAST if region == WEST else WEST
    kms = kit.kms({other: refused_url()})
    assert kms.decrypt_key(wrapped) == KEY
    assert kms.decrypt_key_in(region, wrapped) == KEY
    with pytest.raises(KMSError, match="EndpointConnectionError") as caught:
        kms.decrypt_key_in(other, wrapped)
    assert list(caught.value.failures) == [other]


def test_without_a_preferred_region_the_next_one_wraps_and_the_loss_is_reported(kit: Kit) -> None:
    kms = kit.kms({WEST: refused_url()})
    wrapped = kms.encrypt_key(KEY)
    assert kms.regions_of(wrapped) == {EAST: kit.servers[EAST].arn}
    failures = [event for event in kit.events if isinstance(event, RegionFailed)]
    assert [(event.region, event.master_key, event.operation, event.consequence) for event in failures] == [
        (WEST, kit.servers[WEST].arn, "GenerateDataKey", "the next region is asked"),
        (WEST, kit.servers[WEST].arn, "Encrypt", "the new system key can't be opened there until it is re-wrapped"),
    ]


def test_a_second_region_that_fails_while_wrapping_is_reported_and_left_out(kit: Kit) -> None:
    wrapped = kit.kms({EAST: refused_url()}).encrypt_key(KEY)
    assert failed(kit) == [(EAST, "Encrypt")]
    assert kit.kms().regions_of(wrapped) == {WEST: kit.servers[WEST].arn}
    with pytest.raises(KMSError, match="not wrapped for this region"):
        kit.kms().decrypt_key_in(EAST, wrapped)


def test_all_regions_lost_gives_one_error_with_every_cause(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    kms = kit.kms({WEST: refused_url(), EAST: refused_url()})
    for work in (lambda: kms.encrypt_key(KEY), lambda: kms.decrypt_key(wrapped)):
        with pytest.raises(KMSError) as caught:
            work()
        assert {region: type(cause).__name__ for region, cause in caught.value.failures.items()} == {
            WEST: "EndpointConnectionError",
            EAST: "EndpointConnectionError",
        }


FAULTS: dict[str, Any] = {
    "server error": lambda: answering(500, b"{}"),
    "throttled": lambda: failing_as("ThrottlingException"),
    "access denied": lambda: failing_as("AccessDeniedException"),
    "key disabled": lambda: failing_as("DisabledException"),
    "key pending deletion": lambda: failing_as("KMSInvalidStateException"),
    "wrong key": lambda: failing_as("IncorrectKeyException"),
    "not JSON": lambda: answering(200, b"\xff\xfe garbage"),
    "an answer without members": lambda: answering(200, b"{}"),
    "a data key that is too short": lambda: answering(200, b'{"Plaintext":"AAAA","CiphertextBlob":"AAAA"}'),
    "members of another type": lambda: answering(200, b'{"Plaintext":5,"CiphertextBlob":[]}'),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("region", [WEST, EAST])
def test_reads_and_writes_go_on_while_one_region_works(kit: Kit, fault: str, region: str) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with FAULTS[fault]() as server:
        kms = kit.kms({region: server.url})
        assert kms.decrypt_key(wrapped) == KEY
        assert kit.kms().decrypt_key(kms.encrypt_key(KEY)) == KEY


@pytest.mark.parametrize("fault", FAULTS)
def test_with_the_fault_in_every_region_the_error_names_each(kit: Kit, fault: str) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with FAULTS[fault]() as server:
        kms = kit.kms({WEST: server.url, EAST: server.url})
        for work in (lambda: kms.encrypt_key(KEY), lambda: kms.decrypt_key(wrapped)):
            with pytest.raises(KMSError) as caught:
                work()
            assert set(caught.value.failures) == {WEST, EAST}


def test_a_stalled_region_is_asked_once_and_then_last(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with stalled() as server:
        kms = kit.kms({WEST: server.url}, read_timeout=0.2)
        for _ in range(5):
            assert kms.decrypt_key(wrapped) == KEY
        assert server.requests == 1
        kit.clock.now += 59.9
        kms.decrypt_key(wrapped)
        assert server.requests == 1
        kit.clock.now += 0.1
        kms.decrypt_key(wrapped)
        kms.decrypt_key(wrapped)
        assert server.requests == 2
        assert failing(kms) == {WEST}


def test_a_stalled_region_costs_one_timeout_when_a_key_is_made(kit: Kit) -> None:
    with stalled() as server:
        kms = kit.kms({WEST: server.url}, read_timeout=0.2)
        wrapped = kms.encrypt_key(KEY)
        assert server.requests == 1
    assert kms.regions_of(wrapped) == {EAST: kit.servers[EAST].arn}
    assert failed(kit) == [(WEST, "GenerateDataKey"), (WEST, "Encrypt")]


class TestAnAnswerThatNeverEnds:
    """Its bytes come more often than the read timeout demands, and for ever."""

    @pytest.mark.parametrize("part", ["status line", "headers", "body"])
    def test_another_region_unwraps(self, kit: Kit, part: str) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        with dripping(part) as server:
            kms = kit.kms({WEST: server.url}, **SHORT)
            for _ in range(3):
                assert kms.decrypt_key(wrapped) == KEY
            assert server.requests == 1
        cause = "the KMS of region us-west-2 has not answered within 2.5 seconds"
        assert [(event.region, event.operation, str(event.cause)) for event in failures(kit)] == [
            (WEST, "Decrypt", cause)
        ]
        assert KMSCalled(WEST, "Decrypt", 0.0, "DeadlineError") in kit.events

    def test_another_region_makes_the_key_and_it_is_asked_once(self, kit: Kit) -> None:
        with dripping() as server:
            kms = kit.kms({WEST: server.url}, max_attempts=3, **SHORT)
            wrapped = kms.encrypt_key(KEY)
            assert server.requests == 1
        assert kms.regions_of(wrapped) == {EAST: kit.servers[EAST].arn}
        assert failed(kit) == [(WEST, "GenerateDataKey"), (WEST, "Encrypt")]

    def test_in_every_region_it_is_an_error_that_names_each(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        with dripping() as west, dripping() as east:
            kms = kit.kms({WEST: west.url, EAST: east.url}, **SHORT)
            with pytest.raises(KMSError) as caught:
                kms.decrypt_key(wrapped)
        assert {region: str(cause) for region, cause in caught.value.failures.items()} == {
            region: f"the KMS of region {region} has not answered within 2.5 seconds" for region in (WEST, EAST)
        }


def test_credentials_that_never_come_end_in_an_error(kit: Kit) -> None:
    released = threading.Event()

    def wait_for_credentials() -> boto3.Session:
        released.wait()
        return boto3.Session(**ACCESS)

    kms = kit.kms(session=wait_for_credentials, **SHORT)
    try:
        with pytest.raises(KMSError) as caught:
            kms.encrypt_key(KEY)
    finally:
        released.set()
    assert [type(cause).__name__ for cause in caught.value.failures.values()] == ["DeadlineError"] * 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_region_that_fails_is_asked_last_for_a_minute(kit: Kit, fault: str) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with FAULTS[fault]() as server:
        kms = kit.kms({WEST: server.url}, max_attempts=1)
        for _ in range(3):
            kms.decrypt_key(wrapped)
        assert server.requests == 1
        kit.clock.now += 60
        for _ in range(3):
            kms.decrypt_key(wrapped)
        assert server.requests == 2
        assert failing(kms) == {WEST}


def test_a_region_that_has_come_back_is_asked_first_again(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    server = kit.servers[WEST]
    kms = kit.kms(read_timeout=0.3)
    server.pause()
    try:
        assert kms.decrypt_key(wrapped) == KEY
    finally:
        server.resume()
    kit.clock.now += 60
    assert kms.decrypt_key(wrapped) == KEY
    assert failing(kms) == set()


def test_what_fails_at_once_is_tried_again_and_what_times_out_is_not(kit: Kit) -> None:
    with answering(500, b"{}") as broken, failing_as("AccessDeniedException") as denied, stalled() as silent:
        for server, expected in ((broken, 3), (denied, 1), (silent, 1)):
            kms = kit.kms({WEST: server.url, EAST: refused_url()}, max_attempts=3, read_timeout=0.2)
            with pytest.raises(KMSError):
                kms.encrypt_key(KEY)
            assert server.requests == expected


def test_timeouts_reach_the_client(kit: Kit) -> None:
    made: list[tuple[float, float]] = []

    class Session:
        def client(self, service: str, *, config: Any, **options: Any) -> Any:
            made.append((config.connect_timeout, config.read_timeout))
            raise KMSError("no client")

    for options in ({"connect_timeout": 7, "read_timeout": 8}, {}):
        with pytest.raises(KMSError):
            kit.kms(session=Session(), **options).check_region(WEST)
    assert made == [(7, 8), (2, 3)]


def test_the_session_may_be_a_function(kit: Kit) -> None:
    made = []

    def make() -> boto3.Session:
        made.append(boto3.Session(aws_access_key_id="a", aws_secret_access_key="b"))
        return made[-1]

    kms = kit.kms(session=make)
    assert made == []
    kms.decrypt_key(kms.encrypt_key(KEY))
    assert len(made) == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'{"encryptedKey":"AAAA","kmsKeks":[]}',
        b'{"encryptedKey":"' + b"A" * 80 + b'","kmsKeks":[{"region":"r"}]}',
        b'{"encryptedKey":"' + b"A" * 80 + b'","kmsKeks":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_the_aws_kms_did_not_make_is_refused(kit: Kit, garbage: bytes) -> None:
    with pytest.raises(InvalidRecordError):
        kit.kms().decrypt_key(garbage)


def test_a_tampered_system_key_opens_in_no_region(kit: Kit) -> None:
    document = json.loads(kit.kms().encrypt_key(KEY))
    document["encryptedKey"] = "A" + document["encryptedKey"][1:] if document["encryptedKey"][0] != "A" else "B"
    document["encryptedKey"] = document["encryptedKey"].ljust(80, "A")
    with pytest.raises(KMSError) as caught:
        kit.kms().decrypt_key(json.dumps(document).encode())
    assert [type(cause).__name__ for cause in caught.value.failures.values()] == ["DecryptionError"] * 2


def test_members_in_any_order_and_unknown_ones_are_read(kit: Kit) -> None:
    document = json.loads(kit.kms().encrypt_key(KEY))
    turned = {"new": 1, "kmsKeks": [dict(reversed(kek.items())) for kek in document["kmsKeks"][::-1]]}
    turned["encryptedKey"] = document["encryptedKey"]
    assert kit.kms().decrypt_key(json.dumps(turned).encode()) == KEY


def test_the_configured_arn_decides_and_not_the_stored_one(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    foreign = kit.kms(regions={region: server.create_key() for region, server in kit.servers.items()})
    with pytest.raises(KMSError):
        foreign.decrypt_key(wrapped)


def test_nothing_secret_is_logged_at_debug(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "django_asherah"):
        kms = kit.kms({EAST: refused_url()})
        kms.decrypt_key(kms.encrypt_key(KEY))
    for form in (KEY.hex(), repr(KEY), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="):
        assert form not in caplog.text
    assert repr(kms) == "<AwsKMS us-west-2, us-east-1>"


@either_fork
def test_a_forked_child_unwraps_with_clients_of_its_own(fork: Fork, kit: Kit) -> None:
    """Although a thread of its parent was making a client, and held the lock for it, at the fork."""
    made: list[int] = []
    is_making, may_go_on = threading.Event(), threading.Event()

    def make() -> boto3.Session:
        made.append(os.getpid())
        return boto3.Session(**ACCESS)

    def make_slowly() -> boto3.Session:
        is_making.set()
        assert may_go_on.wait(60)
        return boto3.Session(**ACCESS)

    def unwrap() -> tuple[bytes, bool]:
        before = len(made)
        return bytes(kms.decrypt_key(wrapped)), made[before:] == [os.getpid()]

    wrapped = kit.kms().encrypt_key(KEY)
    kms, busy = kit.kms(session=make), kit.kms(session=make_slowly, read_timeout=60)
    maker = threading.Thread(target=busy.check_region, args=(WEST,))
    assert kms.decrypt_key(wrapped) == KEY
    maker.start()
    assert is_making.wait(60)
    assert in_child(fork, unwrap) == (KEY, True)
    may_go_on.set()
    maker.join()
    assert kms.decrypt_key(wrapped) == KEY


class TestRewrap:
    """A wrapped key is brought in line with the settings, and the key itself stays."""

    def test_nothing_to_do_gives_the_same_bytes(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        assert kit.kms().rewrap(wrapped) == wrapped

    def test_a_region_that_failed_at_creation_is_repaired(self, kit: Kit) -> None:
        wrapped = kit.kms({EAST: refused_url()}).encrypt_key(KEY)
        repaired = kit.kms().rewrap(wrapped)
        assert kit.kms().decrypt_key_in(EAST, repaired) == KEY
        assert kit.kms().decrypt_key_in(WEST, repaired) == KEY

    def test_a_region_is_added_and_one_removed(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        with moto_region("eu-west-1") as third:
            regions = {EAST: kit.servers[EAST].arn, "eu-west-1": third.arn}
            urls = {EAST: kit.servers[EAST].url, "eu-west-1": third.url}
            kms = kit.kms(regions=regions, preferred_region=EAST, endpoint_urls=urls)
            moved = kms.rewrap(wrapped)
            assert list(kms.regions_of(moved)) == [EAST, "eu-west-1"]
            assert kms.decrypt_key_in("eu-west-1", moved) == KEY
        before, after = decode_wrapped(wrapped), decode_wrapped(moved)
        assert after.encrypted_key == before.encrypted_key
        assert after.kms_keks[0] == before.kms_keks[1]

    def test_a_replaced_arn_is_wrapped_anew(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        arns = {WEST: kit.servers[WEST].create_key(), EAST: kit.servers[EAST].arn}
        kms = kit.kms(regions=arns)
        moved = kms.rewrap(wrapped)
        assert kms.regions_of(moved) == arns
        assert kms.decrypt_key_in(WEST, moved) == KEY

    def test_every_arn_replaced_needs_an_old_one_to_be_named(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        old = {region: server.arn for region, server in kit.servers.items()}
        kms = kit.kms(regions={region: server.create_key() for region, server in kit.servers.items()})
        with pytest.raises(KMSError, match="no region could unwrap"):
            kms.rewrap(wrapped)
        moved = kms.rewrap(wrapped, old_master_keys=[old[EAST]])
        assert kms.decrypt_key_in(WEST, moved) == kms.decrypt_key_in(EAST, moved) == KEY

    def test_all_or_nothing_unless_missing_regions_are_allowed(self, kit: Kit) -> None:
        wrapped = kit.kms({EAST: refused_url()}).encrypt_key(KEY)
        kms = kit.kms({EAST: refused_url()})
        with pytest.raises(KMSError, match="not every region") as caught:
            kms.rewrap(wrapped)
        assert list(caught.value.failures) == [EAST]
        assert kms.rewrap(wrapped, allow_missing=True) == wrapped

    def test_a_region_that_is_down_keeps_the_kek_it_has(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        kms = kit.kms({EAST: refused_url()})
        assert kms.rewrap(wrapped, allow_missing=True) == wrapped

    def test_a_damaged_kek_is_replaced(self, kit: Kit) -> None:
        wrapped = kit.kms().encrypt_key(KEY)
        document = json.loads(wrapped)
        document["kmsKeks"][1]["encryptedKek"] = document["kmsKeks"][0]["encryptedKek"]
        repaired = kit.kms().rewrap(json.dumps(document).encode())
        assert kit.kms().decrypt_key_in(EAST, repaired) == KEY


class TestAlias:
    """The settings take none any longer; what was wrapped under one is read, and gets the key's own name."""

    @pytest.fixture
    def alias(self, kit: Kit) -> str:
        """An alias in the west, as settings had it before."""
        west = kit.servers[WEST]
        name = f"alias/clinic-{uuid4()}"
        west.client.create_alias(AliasName=name, TargetKeyId=west.arn)
        return f"{west.arn.rpartition(':')[0]}:{name}"

    @pytest.fixture
    def wrapped(self, kit: Kit, alias: str) -> bytes:
        return kit.kms(regions={WEST: alias}).encrypt_key(KEY)

    def test_what_was_wrapped_under_it_opens_with_the_keys_own_arn_and_gets_it(
        self, kit: Kit, alias: str, wrapped: bytes
    ) -> None:
        arns = {WEST: kit.servers[WEST].arn}
        kms = kit.kms(regions=arns)
        assert kms.regions_of(wrapped) == {WEST: alias}
        assert kms.decrypt_key(wrapped) == KEY
        moved = kms.rewrap(wrapped)
        assert kms.regions_of(moved) == arns
        assert kms.decrypt_key(moved) == KEY

    def test_once_it_was_pointed_elsewhere_the_key_itself_can_be_named(
        self, kit: Kit, alias: str, wrapped: bytes
    ) -> None:
        server = kit.servers[WEST]
        new = server.create_key()
        server.client.update_alias(AliasName=alias.rpartition(":")[2], TargetKeyId=new)
        kms = kit.kms(regions={WEST: new})
        for names in ([], [alias], [server.create_key()]):
            with pytest.raises(KMSError, match="no region could unwrap"):
                kms.rewrap(wrapped, old_master_keys=names)
        moved = kms.rewrap(wrapped, old_master_keys=[server.arn])
        assert kms.regions_of(moved) == {WEST: new}
        assert kms.decrypt_key(moved) == KEY


class Replicas:
    """KMS in every region, with replicas of one key. It is a session of boto3 and a client, too.

    moto can't play it: it cuts off the ids of multi-Region keys, and opens nothing that it has wrapped under one.
    """

    ARNS: ClassVar = {region: f"arn:aws:kms:{region}:111122223333:key/mrk-1234abcd" for region in (WEST, EAST)}

    def __init__(self, region: str = "", lost: str = "") -> None:
        self._region = region
        self._lost = lost
        self._cipher = Cipher(b"replicas share their material...")

    def client(self, service: str, region_name: str, **options: Any) -> Any:
        return Replicas(region_name, self._lost)

    def generate_data_key(self, KeyId: str, KeySpec: str) -> dict[str, bytes]:
        kek = os.urandom(32)
        return {"Plaintext": kek, **self.encrypt(KeyId, kek)}

    def encrypt(self, KeyId: str, Plaintext: bytes) -> dict[str, bytes]:
        self._require(KeyId)
        return {"CiphertextBlob": self._cipher.seal(Plaintext)}

    def decrypt(self, KeyId: str, CiphertextBlob: bytes) -> dict[str, bytes]:
        self._require(KeyId)
        return {"Plaintext": self._cipher.open(CiphertextBlob)}

    def _require(self, arn: str) -> None:
        if self._lost == self._region or arn != self.ARNS[self._region]:
            raise EndpointConnectionError(endpoint_url=self._region)


class TestMultiRegionKeys:
    """Replicas of one key (``mrk-``): each region asks its own, as any other key."""

    @pytest.mark.parametrize("lost", [WEST, EAST])
    def test_either_region_opens_what_was_wrapped_under_replicas(self, lost: str) -> None:
        kms = AwsKMS(Replicas.ARNS, WEST, session=Replicas())
        wrapped = kms.encrypt_key(KEY)
        assert kms.regions_of(wrapped) == Replicas.ARNS
        assert [kms.decrypt_key_in(region, wrapped) for region in Replicas.ARNS] == [KEY, KEY]
        assert kms.rewrap(wrapped) == wrapped

        left = AwsKMS(Replicas.ARNS, WEST, session=Replicas(lost=lost))
        assert left.decrypt_key(wrapped) == KEY
        made = left.encrypt_key(KEY)
        assert list(left.regions_of(made)) == [region for region in Replicas.ARNS if region != lost]
        assert kms.regions_of(kms.rewrap(made)) == Replicas.ARNS

    def test_a_second_replica_is_added_by_a_re_wrap(self) -> None:
        wrapped = AwsKMS({WEST: Replicas.ARNS[WEST]}, WEST, session=Replicas()).encrypt_key(KEY)
        moved = AwsKMS(Replicas.ARNS, WEST, session=Replicas()).rewrap(wrapped)
        assert AwsKMS({EAST: Replicas.ARNS[EAST]}, EAST, session=Replicas()).decrypt_key(moved) == KEY

    def test_a_replica_is_fit_to_wrap(self, kit: Kit) -> None:
        west = kit.servers[WEST]
        made = west.client.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="SYMMETRIC_DEFAULT", MultiRegion=True)
        primary = made["KeyMetadata"]["Arn"]
        replica = west.client.replicate_key(KeyId=primary.rpartition("/")[2], ReplicaRegion=EAST)
        regions = {WEST: primary, EAST: replica["ReplicaKeyMetadata"]["Arn"]}
        assert {arn.rpartition("/")[2][:4] for arn in regions.values()} == {"mrk-"}
        for region in regions:
            kit.kms({EAST: west.url}, regions=regions).check_region(region)


class TestCheckRegion:
    """What a master key's own region says of it."""

    def test_an_enabled_key_passes_and_can_wrap(self, kit: Kit) -> None:
        kit.kms().check_region(WEST)
        kit.kms().check_wrap(WEST)

    def test_a_disabled_key_does_not(self, kit: Kit) -> None:
        server = kit.servers[WEST]
        arn = server.create_key()
        kms = kit.kms(regions={WEST: arn})
        server.client.disable_key(KeyId=arn.rpartition("/")[2])
        with pytest.raises(KMSError, match="KeyState 'Disabled' instead of 'Enabled'"):
            kms.check_region(WEST)
        # moto goes on encrypting with a disabled key; AWS answers as this server does.
        with (
            failing_as("DisabledException") as disabled,
            pytest.raises(KMSError, match=r"can't wrap a key: .*Disabled"),
        ):
            kit.kms({WEST: disabled.url}).check_wrap(WEST)

    def test_a_key_pending_deletion_does_not(self, kit: Kit) -> None:
        server = kit.servers[WEST]
        arn = server.create_key()
        server.client.schedule_key_deletion(KeyId=arn.rpartition("/")[2], PendingWindowInDays=7)
        with pytest.raises(KMSError, match="KeyState 'PendingDeletion'"):
            kit.kms(regions={WEST: arn}).check_region(WEST)

    def test_a_signing_key_does_not(self, kit: Kit) -> None:
        made = kit.servers[WEST].client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
        arn = made["KeyMetadata"]["Arn"]
        with pytest.raises(KMSError, match="KeyUsage 'SIGN_VERIFY' instead of 'ENCRYPT_DECRYPT'"):
            kit.kms(regions={WEST: arn}).check_region(WEST)

    def test_a_region_out_of_reach_does_not(self, kit: Kit) -> None:
        with pytest.raises(KMSError, match="could not be asked"):
            kit.kms({WEST: refused_url()}).check_region(WEST)


def test_no_credentials_are_taken_from_anywhere_but_the_session(kit: Kit) -> None:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HOME", "/nonexistent")
        with pytest.raises(KMSError) as caught:
            kit.kms(session=None).encrypt_key(KEY)
    assert {type(cause).__name__ for cause in caught.value.failures.values()} == {"NoCredentialsError"}


def test_how_each_region_answered_last_is_remembered(kit: Kit) -> None:
    wrapped = kit.kms().encrypt_key(KEY)
    with failing_as("AccessDeniedException") as server:
        kms = kit.kms({WEST: server.url})
        assert kms.last_answers() == {}
        kms.decrypt_key(wrapped)
        kit.clock.now += 5
        assert kms.last_answers() == {WEST: LastAnswer(ok=False, age=5), EAST: LastAnswer(ok=True, age=5)}
        kit.clock.now += 5
        kms.decrypt_key_in(EAST, wrapped)
    assert kms.last_answers() == {WEST: LastAnswer(ok=False, age=10), EAST: LastAnswer(ok=True, age=0)}
