"""Re-wrap against real KMS servers, one a region."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from msgspec.structs import replace

from django_asherah import engine, lifecycle
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import KMSError
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.lifecycle.conftest import Run
from tests.moto_servers import MotoRegion, moto_region
from tests.testapp.models import Note

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SK_ID = "_SK_suite_tests"
Moto = Callable[..., None]


@pytest.fixture(scope="module")
def other() -> Iterator[MotoRegion]:
    """One more region that stays."""
    with moto_region("us-east-1") as server:
        yield server


@pytest.fixture
def note(moto: Moto, steady: MotoRegion) -> Note:
    """A value whose system key only ``steady`` wraps."""
    moto(regions=[steady])
    return Note.objects.create(body="the value", other_body="")


def wrapped() -> dict[str, str]:
    (system,) = [key for key in lifecycle.list_keys() if key.kind == "system"]
    return system.regions


def rows() -> list[Any]:
    return list(EncryptionKey.objects.order_by("key_id", "created").values_list("key_id", "created", "key_record"))


def require_reads(note: Note) -> None:
    engine.reset()
    assert Note.objects.get(pk=note.pk).body == "the value"


def require_opens(note: Note) -> None:
    require_reads(note)
    assert lifecycle.verify_keys().problems == []


def test_a_region_is_added_and_alone_opens_everything(
    note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run
) -> None:
    before = rows()
    moto(regions=[steady, other])
    assert run("asherah_status")["problems"][0]["reason"] == f"not wrapped for {other.region}"
    assert run("asherah_rewrap", "--dry-run")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
    assert rows() == before
    assert run("asherah_rewrap")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
    assert wrapped() == {steady.region: steady.arn, other.region: other.arn}
    assert [row[:2] for row in rows()] == [row[:2] for row in before]
    assert rows()[0] == before[0]  # The intermediate key.
    require_opens(note)
    moto(regions=[other])
    require_reads(note)


def test_a_region_is_removed(note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run) -> None:
    moto(regions=[steady, other])
    lifecycle.rewrap()
    moto(regions=[other])
    assert run("asherah_rewrap")["summary"]["rewrapped"] == 1
    assert wrapped() == {other.region: other.arn}
    assert run("asherah_rewrap")["summary"] == {"rewrapped": 0, "unchanged": 1, "failed": 0}
    require_opens(note)


def test_an_arn_is_replaced_with_the_help_of_another_region(
    note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run
) -> None:
    moto(regions=[steady, other])
    lifecycle.rewrap()
    new = steady.create_key()
    moto(regions=[steady, other], arns={steady.region: new})
    assert run("asherah_rewrap")["code"] == 0
    assert wrapped() == {steady.region: new, other.region: other.arn}
    require_opens(note)
    moto(regions=[steady], arns={steady.region: new})
    require_reads(note)


def test_the_only_arn_is_replaced_if_the_old_one_is_named(note: Note, moto: Moto, steady: MotoRegion, run: Run) -> None:
    new = steady.create_key()
    moto(regions=[steady], arns={steady.region: new})
    before = rows()
    document = run("asherah_rewrap")
    assert (document["code"], document["summary"]["failed"]) == (1, 1)
    assert rows() == before
    assert run("asherah_rewrap", "--old-master-key", steady.arn)["code"] == 0
    assert wrapped() == {steady.region: new}
    require_opens(note)


def test_a_region_that_failed_when_the_key_was_made_is_repaired(
    moto: Moto, steady: MotoRegion, other: MotoRegion, doomed: MotoRegion, run: Run
) -> None:
    moto(regions=[steady, doomed])
    doomed.kill()
    note = Note.objects.create(body="the value", other_body="")
    assert list(wrapped()) == [steady.region]
    with moto_region(doomed.region) as back:
        moto(regions=[steady, back])
        assert run("asherah_verify")["code"] == 1
        assert run("asherah_rewrap")["summary"]["rewrapped"] == 1
        assert wrapped() == {steady.region: steady.arn, back.region: back.arn}
        require_opens(note)


def cross(server: MotoRegion) -> KeyMeta:
    """Let a region's copy of the system key's KEK be another KEK, which its master key has wrapped; name the key."""
    metastore = cast(DatabaseMetastore, engine.get_factory().metastore)
    (row,) = metastore.versions(SK_ID)
    record = row.record()
    held = decode_wrapped(record.key)
    anothers = server.client.encrypt(KeyId=server.arn, Plaintext=bytes(32))["CiphertextBlob"]
    keks = [RegionKek(kek.region, kek.arn, anothers) if kek.region == server.region else kek for kek in held.kms_keks]
    crossed = encode_wrapped(WrappedSystemKey(held.encrypted_key, keks))
    assert metastore.replace(row, replace(record, key=crossed))
    return KeyMeta(SK_ID, record.created)


@pytest.mark.parametrize("preferred", [True, False])
def test_a_copy_that_is_anothers_kek_is_found_and_repaired(
    moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run, preferred: bool
) -> None:
    """As processes stored it that shared their connections to one region, and got each other's answers."""
    regions = [steady, other]
    crossed = regions[not preferred]
    moto(regions=regions)
    note = Note.objects.create(body="the value", other_body="")
    system = cross(crossed)
    moto(regions=[crossed])
    with pytest.raises(KMSError, match=f"{crossed.region}: DecryptionError: could not be opened: it was sealed under"):
        require_reads(note)

    moto(regions=regions)
    document = run("asherah_verify")
    assert document["code"] == 1
    (problem,) = document["problems"]
    assert problem["at"] == str(system)
    assert problem["reason"].startswith(f"no region could unwrap the system key: {crossed.region}: DecryptionError: ")

    assert run("asherah_rewrap")["summary"] == {"rewrapped": 1, "unchanged": 0, "failed": 0}
    assert run("asherah_verify")["code"] == 0
    for alone in regions:
        moto(regions=[alone])
        require_reads(note)


def test_all_or_nothing_for_each_key(
    note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, doomed: MotoRegion, run: Run
) -> None:
    before = rows()
    moto(regions=[steady, other, doomed])
    doomed.kill()
    document = run("asherah_rewrap")
    assert (document["code"], document["summary"]) == (1, {"rewrapped": 0, "unchanged": 0, "failed": 1})
    assert doomed.region in document["problems"][0]["reason"]
    assert rows() == before
    document = run("asherah_rewrap", "--allow-missing-regions")
    assert (document["code"], document["summary"]["rewrapped"]) == (0, 1)
    assert list(wrapped()) == [steady.region, other.region]
    require_reads(note)


def test_every_system_key_is_rewrapped_whatever_its_state(
    note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run
) -> None:
    lifecycle.rotate()
    lifecycle.revoke(SK_ID)
    lifecycle.rotate()
    moto(regions=[steady, other])
    assert run("asherah_rewrap")["summary"] == {"rewrapped": 3, "unchanged": 0, "failed": 0}
    assert [key.state for key in lifecycle.list_keys() if key.kind == "system"] == ["current", "revoked", "superseded"]
    require_opens(note)


def test_interrupted_between_keys_and_run_again(
    note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, run: Run
) -> None:
    lifecycle.rotate()
    moto(regions=[steady, other])

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lifecycle.rewrap(progress=interrupt)
    assert run("asherah_rewrap")["summary"] == {"rewrapped": 1, "unchanged": 1, "failed": 0}
    require_opens(note)


class TestVerify:
    def test_each_region_alone_is_asked(self, note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion) -> None:
        """The other region's copy is damaged; the preferred region would hide it."""
        moto(regions=[steady, other])
        lifecycle.rewrap()
        row = EncryptionKey.objects.get(key_id=SK_ID)
        key = base64.b64decode(row.key_record["Key"])
        entry = key.index(b'"encryptedKek":"', key.index(other.region.encode())) + 60
        damaged = key[:entry] + (b"A" if key[entry : entry + 1] != b"A" else b"B") + key[entry + 1 :]
        row.key_record["Key"] = base64.b64encode(damaged).decode()
        EncryptionKey.objects.filter(pk=row.pk).update(key_record=row.key_record)
        require_reads(note)
        (problem,) = lifecycle.verify_keys().problems
        assert problem[0].startswith(SK_ID)
        assert other.region in problem[1]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (
                lambda kms, arn: kms.disable_key(KeyId=arn.rpartition("/")[2]),
                "has KeyState 'Disabled' instead of 'Enabled'",
            ),
            (
                lambda kms, arn: kms.schedule_key_deletion(KeyId=arn.rpartition("/")[2], PendingWindowInDays=7),
                "has KeyState 'PendingDeletion' instead of 'Enabled'",
            ),
        ],
    )
    def test_the_state_of_each_master_key(
        self, note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion, change: Any, says: str, run: Run
    ) -> None:
        arn = other.create_key()
        moto(regions=[steady, other], arns={other.region: arn})
        lifecycle.rewrap()
        assert run("asherah_verify")["code"] == 0
        change(other.client, arn)
        document = run("asherah_verify")
        assert document["code"] == 1
        assert document["problems"][0]["at"] == other.region
        assert says in document["problems"][0]["reason"]

    def test_a_master_key_of_the_wrong_kind(
        self, note: Note, moto: Moto, steady: MotoRegion, other: MotoRegion
    ) -> None:
        made = other.client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_2048")["KeyMetadata"]["Arn"]
        moto(regions=[steady, other], arns={other.region: made})
        problems = dict(lifecycle.verify_keys().problems)
        assert "has KeyUsage 'SIGN_VERIFY' instead of 'ENCRYPT_DECRYPT'" in problems[other.region]


def test_a_rotation_with_a_dead_region_says_so_before_anything_is_made(
    note: Note, moto: Moto, steady: MotoRegion, doomed: MotoRegion
) -> None:
    moto(regions=[steady, doomed])
    doomed.kill()
    with pytest.raises(KMSError, match="no key was rotated, because it would lack a region") as caught:
        lifecycle.rotate()
    assert list(caught.value.failures) == [doomed.region]
