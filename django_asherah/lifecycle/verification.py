"""Verify the keys: prove that every one opens in every region."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hmac import compare_digest

from django_asherah import audit, signals
from django_asherah.envelope.aead import wipe
from django_asherah.envelope.batches import KEYS_AT_ONCE
from django_asherah.envelope.partition import KeyKind
from django_asherah.envelope.parts import parts_of
from django_asherah.envelope.records import KeyMeta
from django_asherah.exceptions import AsherahError, KeyNotFoundError, KMSError
from django_asherah.kms.regional import RegionalKMS, ask_regions, is_regional
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.first import FirstOf
from django_asherah.lifecycle.keys import KeyInfo, Listing, keys_of_id
from django_asherah.lifecycle.progress import Progress, tell_nobody


@dataclass(slots=True)
class KeyReport:
    """What was found of the keys: how many were proven, and the first thousand problems as (key or region, reason)."""

    system_keys: int = 0
    intermediate_keys: int = 0
    problems: FirstOf[tuple[str, str]] = field(default_factory=FirstOf)


def verify_keys(progress: Progress = tell_nobody) -> KeyReport:
    """Unwrap every system key in each region alone, ask each region of its master key, open every intermediate key.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys, or fails.
    """
    context = get_context()
    report = KeyReport()
    with _recorded(None, report):
        _check_regions(context, report)
        listing = Listing(context)
        keys = (key for key in listing if key.ours)
        for batch in parts_of(keys, KEYS_AT_ONCE):
            unopened: set[KeyMeta] = set()
            opened = context.factory.load_keys(key.meta for key in batch if key.kind is KeyKind.INTERMEDIATE)
            for key in batch:
                if key.meta in opened and not key.problems:
                    report.intermediate_keys += 1
                else:
                    _verify_key(context, key, report, unopened)
                progress(1)
        report.problems.merge(listing.unreadable)
    return report


def verify_key(meta: KeyMeta) -> KeyReport:
    """Unwrap one system key in each region alone; or one intermediate key's system key so, and open it.

    Raises:
        ImproperlyConfigured: the settings are wrong.
        MetastoreError: the metastore can't list its keys, or fails.
    """
    context = get_context()
    report = KeyReport()
    with _recorded(meta, report):
        try:
            key = _find(context, meta)
            for each in [_find(context, key.parent), key] if key.parent else [key]:
                _verify_key(context, each, report, set())
        except KeyNotFoundError as exc:
            report.problems.add((str(meta), str(exc)))
    return report


def _recorded(meta: KeyMeta | None, report: KeyReport) -> AbstractContextManager[None]:
    return audit.recorded(
        signals.keys_verified,
        "verified_keys",
        lambda: {
            "key_id": meta and meta.key_id,
            "created": meta and meta.created,
            "system_keys": report.system_keys,
            "intermediate_keys": report.intermediate_keys,
            "problems": report.problems.total,
        },
        has_problems=lambda: bool(report.problems.total),
    )


def _find(context: Context, meta: KeyMeta) -> KeyInfo:
    for key in keys_of_id(context, meta.key_id):
        if key.meta == meta:
            return key
    raise KeyNotFoundError(f"there is no readable key {meta}")


def _check_regions(context: Context, report: KeyReport) -> None:
    kms = context.factory.kms
    if is_regional(kms):
        failures = ask_regions(kms, kms.check_region)
        report.problems.add_all((region, str(cause)) for region, cause in failures.items())


def _verify_key(context: Context, key: KeyInfo, report: KeyReport, unopened: set[KeyMeta]) -> None:
    """Verify one key; ``unopened`` are system keys that no KMS unwraps, which is asked once for all their keys."""
    report.problems.add_all((str(key.meta), problem) for problem in key.problems)
    try:
        if key.kind is KeyKind.SYSTEM:
            report.problems.add_all((str(key.meta), problem) for problem in _unwrap_everywhere(context, key.meta))
            report.system_keys += 1
        elif key.parent in unopened:
            report.problems.add((str(key.meta), f"not tried again: no KMS unwraps its system key {key.parent}"))
        else:
            context.factory.intermediate_keys.exact(key.meta)
            report.intermediate_keys += 1
    except AsherahError as exc:
        if isinstance(exc, KMSError) and key.parent:
            unopened.add(key.parent)
        report.problems.add((str(key.meta), str(exc)))


def _unwrap_everywhere(context: Context, meta: KeyMeta) -> list[str]:
    """Return what went wrong in each region."""
    row, kms = context.table.read(meta), context.factory.kms
    if row is None:
        raise KeyNotFoundError(f"key {meta} was deleted meanwhile")
    wrapped = row.record().key
    if is_regional(kms):
        return _unwrap_in_each_region(kms, wrapped)
    wipe(kms.decrypt_key(wrapped))
    return []


def _unwrap_in_each_region(kms: RegionalKMS, wrapped: bytes) -> list[str]:
    keys: dict[str, bytearray] = {}

    def unwrap(region: str) -> None:
        keys[region] = kms.decrypt_key_in(region, wrapped)

    try:
        problems = [str(cause) for cause in ask_regions(kms, unwrap).values()]
        first = next(iter(keys.values()), b"")
        others = [region for region, key in keys.items() if not compare_digest(key, first)]
        return problems + [f"{region} unwraps another key than the regions before it" for region in others]
    finally:
        for key in keys.values():
            wipe(key)
