"""Verify the keys: prove that every one opens in every region."""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from itertools import islice

from django_asherah.envelope.aead import wipe
from django_asherah.envelope.records import KeyMeta, decode_key
from django_asherah.exceptions import AsherahError, KeyNotFoundError, KMSError
from django_asherah.kms.regional import RegionalKMS
from django_asherah.lifecycle.context import Context, get_context
from django_asherah.lifecycle.keys import KeyInfo, Listing, keys_of_id
from django_asherah.lifecycle.progress import Progress, tell_nobody

KEYS_PER_LOAD = 1000


@dataclass(slots=True)
class KeyReport:
    """What was found of the keys: how many were proven, and each problem as (key or region, reason)."""

    system_keys: int = 0
    intermediate_keys: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


def verify_keys(progress: Progress = tell_nobody) -> KeyReport:
    """Unwrap every system key in each region alone, ask each region of its master key, open every intermediate key.

    Raises:
        ImproperlyConfigured, MetastoreError: as everywhere.
    """
    context = get_context()
    report = KeyReport()
    _check_regions(context, report)
    listing = Listing(context)
    keys = (key for key in listing if key.ours)
    while batch := list(islice(keys, KEYS_PER_LOAD)):
        context.factory.load_keys(key.meta for key in batch if key.kind == "intermediate")
        for key in batch:
            _verify_key(context, key, report)
            progress(1)
    report.problems += listing.unreadable
    return report


def verify_key(meta: KeyMeta) -> KeyReport:
    """Unwrap one system key in each region alone; or one intermediate key's system key so, and open it.

    Raises:
        ImproperlyConfigured, MetastoreError: as everywhere.
    """
    context = get_context()
    report = KeyReport()
    try:
        key = _find(context, meta)
        for each in [_find(context, key.parent), key] if key.parent else [key]:
            _verify_key(context, each, report)
    except KeyNotFoundError as exc:
        report.problems.append((str(meta), str(exc)))
    return report


def _find(context: Context, meta: KeyMeta) -> KeyInfo:
    for key in keys_of_id(context, meta.key_id):
        if key.meta == meta:
            return key
    raise KeyNotFoundError(f"there is no readable key {meta}")


def _check_regions(context: Context, report: KeyReport) -> None:
    kms = context.factory.kms
    if isinstance(kms, RegionalKMS):
        for region in kms.master_keys:
            try:
                kms.check_region(region)
            except KMSError as exc:
                report.problems.append((region, str(exc)))


def _verify_key(context: Context, key: KeyInfo, report: KeyReport) -> None:
    report.problems += [(str(key.meta), problem) for problem in key.problems]
    try:
        if key.kind == "system":
            report.problems += [(str(key.meta), problem) for problem in _unwrap_everywhere(context, key.meta)]
            report.system_keys += 1
        else:
            context.factory.intermediate_keys.exact(key.meta)
            report.intermediate_keys += 1
    except AsherahError as exc:
        report.problems.append((str(key.meta), str(exc)))


def _unwrap_everywhere(context: Context, meta: KeyMeta) -> list[str]:
    """Return what went wrong in each region."""
    text, kms = context.table.read(meta), context.factory.kms
    if text is None:
        raise KeyNotFoundError(f"key {meta} was deleted meanwhile")
    wrapped = decode_key(text).key
    if not isinstance(kms, RegionalKMS):
        wipe(kms.decrypt_key(wrapped))
        return []
    problems, first = [], None
    for region in kms.master_keys:
        try:
            raw = kms.decrypt_key_in(region, wrapped)
        except AsherahError as exc:
            problems.append(str(exc))
            continue
        if first is None:
            first = raw
        else:
            if not compare_digest(first, raw):
                problems.append(f"{region} unwraps another key than the regions before it")
            wipe(raw)
    if first is not None:
        wipe(first)
    return problems
