"""Does encryption work? For readiness probes and monitors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from django.core.exceptions import ImproperlyConfigured

from django_asherah import engine
from django_asherah.envelope.aead import wipe
from django_asherah.envelope.interfaces import KeyManagementService
from django_asherah.envelope.levels import MOST_TRIED, PATIENCE
from django_asherah.envelope.records import EnvelopeKeyRecord
from django_asherah.envelope.session import SessionFactory
from django_asherah.exceptions import AsherahError, InvalidRecordError, KMSError
from django_asherah.kms.regional import RegionalKMS, ask_regions, is_regional
from django_asherah.metastores.key_table import ListsKeys

MOST_WARNINGS = 10
"""Rows that are named one by one."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known about the keys.

    Attributes:
        cached_keys: how many opened keys this process holds. While there are some, it works on without a KMS.
        failing_regions: maps each region that failed to the reason.
        problems: what keeps values from being encrypted or decrypted. A failing region is none while another answers.
        warnings: what keeps nothing from working, but should not be there: rows of the system key's id that are no
            keys, or that nobody can open while new writes go by one before. Only ``deep`` finds them.
    """

    cached_keys: int = 0
    failing_regions: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether values can be encrypted and decrypted, as far as is known."""
        return not self.problems


def check(*, deep: bool = False) -> Health:
    """Report whether encryption works. Problems are returned, never raised.

    Args:
        deep: read the system keys from the metastore and unwrap the newest in each region alone. That takes one KMS
            call per region, and as long as the timeouts where one is down. Otherwise nobody is asked: the answer is
            what this process has met since it started, and takes microseconds.
    """
    warnings: list[str] = []
    try:
        factory = engine.get_factory()
        failing = _ask(factory, warnings) if deep else _remember(factory)
    except (ImproperlyConfigured, AsherahError) as exc:
        return Health(problems=(f"{type(exc).__name__}: {exc}",), warnings=tuple(warnings))
    keys = len(factory.system_keys) + len(factory.intermediate_keys)
    problems = [] if keys and not deep else list(_no_region_left(factory, failing))
    return Health(keys, failing, tuple(problems), tuple(warnings))


def _no_region_left(factory: SessionFactory, failing: dict[str, str]) -> Iterator[str]:
    kms = factory.kms
    if is_regional(kms) and failing.keys() >= kms.master_keys.keys():
        yield f"no region's KMS answers: {', '.join(kms.master_keys)}"


def _remember(factory: SessionFactory) -> dict[str, str]:
    kms = factory.kms
    answers = kms.last_answers() if is_regional(kms) else {}
    failing = sorted(region for region, answer in answers.items() if not answer.ok)
    return dict.fromkeys(failing, "its last answer to this process was a failure")


def _ask(factory: SessionFactory, warnings: list[str]) -> dict[str, str]:
    records = _system_keys(factory, warnings)
    started = time.monotonic()
    failing, error = _try(factory.kms, records[0] if records else None)
    if error is None:
        return failing
    if records and time.monotonic() - started <= PATIENCE:
        # As the engine does it: see SystemKeys.
        newest, *before = records
        valid = (record for record in before if _takes_writes(factory, record))
        for record in islice(valid, MOST_TRIED - 1):
            failing_there, error_there = _try(factory.kms, record)
            if error_there is None:
                warnings.append(
                    f"system key {factory.system_key_id} created {newest.created} can't be opened, so new writes go by "
                    f"the one created {record.created}: {error}"
                )
                return failing_there
    if not failing:
        raise error
    return failing


def _takes_writes(factory: SessionFactory, record: EnvelopeKeyRecord) -> bool:
    return not record.revoked and factory.clock() <= factory.policy.expires_at(record.created)


def _try(kms: KeyManagementService, record: EnvelopeKeyRecord | None) -> tuple[dict[str, str], AsherahError | None]:
    """Return which regions fail to open a system key, and an error if it is opened nowhere."""
    if is_regional(kms):
        failing = _ask_regions(kms, record.key if record else None)
        is_lost = failing.keys() >= kms.master_keys.keys()
        return failing, KMSError("; ".join(failing.values())) if is_lost else None
    try:
        if record is not None:
            wipe(kms.decrypt_key(record.key))
    except AsherahError as exc:
        return {}, exc
    return {}, None


def _system_keys(factory: SessionFactory, warnings: list[str]) -> list[EnvelopeKeyRecord]:
    """Return the system keys, the newest first, and add to ``warnings`` what is no key among the rows of their id."""
    key_id, metastore = factory.system_key_id, factory.metastore
    if not isinstance(metastore, ListsKeys):
        newest = metastore.load_latest(key_id)
        return [] if newest is None else [newest]
    sound, unsound = list[EnvelopeKeyRecord](), list[str]()
    for row in metastore.versions(key_id):
        try:
            record = row.record()
            fault = factory.system_keys.find_fault(key_id, record, factory.clock())
        except InvalidRecordError as exc:
            fault = str(exc)
        if fault:
            unsound.append(f"a row of key {key_id} is no key to write under: {fault}")
        else:
            sound.append(record)
    warnings += unsound[:MOST_WARNINGS]
    if len(unsound) > MOST_WARNINGS:
        warnings.append(f"{len(unsound) - MOST_WARNINGS} more rows of key {key_id} are none either")
    return sorted(sound, key=lambda record: record.created, reverse=True)


def _ask_regions(kms: RegionalKMS, wrapped: bytes | None) -> dict[str, str]:
    def ask(region: str) -> None:
        if wrapped is None:
            kms.check_region(region)
        else:
            wipe(kms.decrypt_key_in(region, wrapped))

    return {region: str(cause) for region, cause in ask_regions(kms, ask).items()}
