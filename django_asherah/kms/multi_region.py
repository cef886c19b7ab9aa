"""System keys wrapped under one master key per region: any one of them is enough to unwrap.

The system key is sealed by a KEK, and each region's master key wraps the same KEK. Source:
``go/appencryption/plugins/aws-v2/kms`` of godaddy/asherah. Unlike there, a region that fails is never dropped silently,
and an error carries every region's cause. Whose master keys these are is not known here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hmac import compare_digest
from typing import TypeVar

from django_asherah.envelope.aead import KEY_LENGTH, Cipher, wipe
from django_asherah.envelope.forksafe import PerProcess, any_fraction
from django_asherah.envelope.interfaces import Event, Listener, ignore_events
from django_asherah.exceptions import DecryptionError, KMSError
from django_asherah.kms.health import LastAnswer, RegionHealth
from django_asherah.kms.kek import RegionKek, WrappedSystemKey, decode_wrapped, encode_wrapped, named_pairs
from django_asherah.kms.master_key import MasterKey
from django_asherah.kms.region import MAKE, UNWRAP, WRAP, Region

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds that a region may take for one answer, if nothing else is said."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The regions as one process asks them, and how they have answered it."""

    regions: Mapping[str, Region]
    health: RegionHealth


class MultiRegionKMS:
    """Wraps system keys under one master key per region. Thread-safe; a forked child asks every region anew.

    Args:
        regions: maps each region to the name of its master key.
        preferred_region: asked first.
        make_key: returns the master key of a region, by the region and the key's name; called in each process anew.
        deadline: seconds that a region may take to answer one question, whatever its master key waits for: all attempts
            together, and the pauses between them.
        max_attempts: how often a region is asked that answers at once that it can't answer now.
        on_event: is told of every ``KMSCalled`` and ``RegionFailed``.
        clock: seconds from any fixed point.
        sleep: waits for that many seconds.
        random: returns a number from 0 up to 1.
    """

    def __init__(
        self,
        regions: Mapping[str, str],
        preferred_region: str,
        make_key: Callable[[str, str], MasterKey],
        *,
        deadline: float = DEADLINE,
        max_attempts: int = 2,
        on_event: Listener = ignore_events,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = any_fraction,
    ) -> None:
        others = (region for region in regions if region != preferred_region)
        self.master_keys = {region: regions[region] for region in (preferred_region, *others)}
        self._make_key = make_key
        self._deadline = deadline
        self._max_attempts = max_attempts
        self._notify = on_event
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._asked = PerProcess(self._make_asked)
        self._asked.get()

    def _make_asked(self) -> _Asked:
        health = RegionHealth(self._clock)
        regions = {region: self._region(region, name, health) for region, name in self.master_keys.items()}
        return _Asked(regions, health)

    @property
    def _own(self) -> _Asked:
        try:
            return self._asked.get()
        except Exception as exc:  # Of the master keys' makers; here, not in the parent, which would not have begun.
            raise KMSError(f"no region can be asked in this process: {type(exc).__name__}: {exc}") from exc

    @property
    def _regions(self) -> Mapping[str, Region]:
        return self._own.regions

    def _region(self, region: str, name: str, health: RegionHealth) -> Region:
        return Region(
            region,
            self._make_key(region, name),
            health,
            deadline=self._deadline,
            max_attempts=self._max_attempts,
            on_event=self._notify,
            clock=self._clock,
            sleep=self._sleep,
            random=self._random,
        )

    def encrypt_key(self, key: bytes | bytearray) -> bytes:
        """Wrap a 32-byte system key under the master key of every region that answers.

        Each region has opened its own copy once. What it doesn't open is reported, and left out.

        Raises:
            KMSError: no region made a data key and opened it; ``failures`` has each one's cause.
        """
        return encode_wrapped(self._wrap(key))

    def decrypt_key(self, wrapped: bytes) -> bytearray:
        """Unwrap a system key in the first region that can: preferred first, those that failed lately last.

        Raises:
            KMSError: no region could; ``failures`` has each one's cause.
        """
        return self._unwrap(decode_wrapped(wrapped), self._in_order())[1]

    def decrypt_key_in(self, region: str, wrapped: bytes) -> bytearray:
        """Unwrap a system key in ``region`` alone.

        Raises:
            KMSError: that region can't.
        """
        return self._unwrap(decode_wrapped(wrapped), [self._regions[region]])[1]

    def regions_of(self, wrapped: bytes) -> dict[str, str]:
        """Return the regions that hold a wrapped system key's KEK, with their master keys' names. Asks no region.

        Raises:
            InvalidRecordError: another KMS wrapped it.
        """
        return {kek.region: kek.arn for kek in decode_wrapped(wrapped).kms_keks}

    def last_answers(self) -> dict[str, LastAnswer]:
        """Return how each region's last answer to this process was, for every region that was asked. Asks no region."""
        return self._own.health.last_answers()

    def check_region(self, region: str) -> None:
        """Ask whether the master key of ``region`` is enabled and of the right kind.

        Raises:
            KMSError: it isn't, or the region does not answer.
        """
        asked = self._regions[region]
        problem = asked.find_problem()
        if isinstance(problem, Exception):
            raise asked.error("could not be asked", problem) from problem
        if problem:
            raise asked.error(problem)

    def check_wrap(self, region: str) -> None:
        """Try whether ``region`` can wrap a key now, and open it, with a random one that is thrown away.

        Raises:
            KMSError: it can't.
        """
        asked = self._regions[region]
        result = asked.wrap(os.urandom(KEY_LENGTH))
        if isinstance(result, Exception):
            raise asked.error("can't wrap a key", result) from result

    def rewrap(self, wrapped: bytes, *, old_master_keys: Iterable[str] = (), allow_missing: bool = False) -> bytes:
        """Wrap the same system key for exactly the configured regions; what is already right stays as it is.

        Every KEK of the result was unwrapped in its own region alone and opens the system key.

        Args:
            wrapped: what :meth:`encrypt_key` returned.
            old_master_keys: names of master keys that are no longer configured, but may be asked to unwrap this once.
                One that is stored nowhere in ``wrapped`` is asked in each of its regions.
            allow_missing: go on when a region does not answer. A KEK that it already has is kept as it is.

        Raises:
            KMSError: no region unwraps it, or a configured region can't wrap it.
        """
        current = decode_wrapped(wrapped)
        held = {entry.region: entry for entry in current.kms_keks if self.master_keys.get(entry.region) == entry.arn}
        good, added, failures = self._wrap_again(current, held, old_master_keys)
        if failures and not allow_missing:
            raise KMSError(f"not every region could wrap the system key: {_list(failures)}", failures)
        if len(failures) == len(self.master_keys):
            raise KMSError(f"no configured region could wrap the system key: {_list(failures)}", failures)
        kept = [held[region] for region in failures if region in held]
        new = {entry.region: entry for entry in (*good, *added, *kept)}
        keks = [new[region] for region in self.master_keys if region in new]
        if _same(keks, current.kms_keks):
            return wrapped
        return encode_wrapped(WrappedSystemKey(current.encrypted_key, keks))

    # No method that holds a KEK raises: whoever shows the frames of an error would show it.

    def _wrap(self, key: bytes | bytearray) -> WrappedSystemKey:
        kek, first, failures = self._make_kek()
        lost = {region: cause for region, cause in failures.items() if self._regions[region].timed_out(cause)}
        added, failed = self._wrap_in(kek, [name for name in self.master_keys if name not in {first.region, *lost}])
        for region, cause in (lost | failed).items():
            consequence = "the new system key can't be opened there until it is re-wrapped"
            self._regions[region].report(WRAP, cause, consequence)
        return WrappedSystemKey(Cipher(kek).seal(key), [first, *added])

    def _make_kek(self) -> tuple[bytes, RegionKek, dict[str, Exception]]:
        """Return the first region's KEK, the same wrapped, and what went wrong in the regions before it."""
        failures: dict[str, Exception] = {}
        for region in self._in_order():
            made = region.make_kek()
            if not isinstance(made, Exception):
                return *made, failures
            failures[region.name] = made
            region.report(MAKE, made, "the next region is asked")
        raise KMSError(f"no region could make a data key: {_list(failures)}", failures)

    def _wrap_in(self, kek: bytes, names: list[str]) -> tuple[list[RegionKek], dict[str, Exception]]:
        """Wrap ``kek`` in every one of these regions."""
        results = self._ask_each(names, lambda region, on_event: region.wrap(kek, on_event))
        failures = {name: result for name, result in results.items() if isinstance(result, Exception)}
        return [result for result in results.values() if not isinstance(result, Exception)], failures

    def _ask_each(self, names: Iterable[str], ask: Callable[[Region, Listener], T]) -> dict[str, T]:
        """Ask every one of these regions at the same time."""
        regions = [self._regions[name] for name in names]
        if not regions:
            return {}
        with ThreadPoolExecutor(len(regions), thread_name_prefix="asherah-kms") as pool:
            # Told here and not in the pool, for this thread may hold a key's lock that a listener asks for.
            calls: list[Event] = []
            results = list(pool.map(lambda region: ask(region, calls.append), regions))
        for call in calls:
            self._notify(call)
        return {region.name: result for region, result in zip(regions, results, strict=True)}

    def _wrap_again(
        self, current: WrappedSystemKey, held: Mapping[str, RegionKek], old_master_keys: Iterable[str]
    ) -> tuple[list[RegionKek], list[RegionKek], dict[str, Exception]]:
        """Return the KEKs of ``held`` that are right, new ones for the other regions, and what failed there."""
        kek = self._recover_kek(current, old_master_keys)
        good = self._those_of(kek, held)
        proven = {entry.region for entry in good}
        added, failures = self._wrap_in(kek, [name for name in self.master_keys if name not in proven])
        return good, added, failures

    def _those_of(self, kek: bytes, held: Mapping[str, RegionKek]) -> list[RegionKek]:
        """Return those of these entries that their own region opens to ``kek``."""
        found = self._ask_each(held, lambda region, on_event: region.unwrap(held[region.name], on_event))
        for name, result in found.items():
            if isinstance(result, Exception):
                self._regions[name].report(UNWRAP, result, "its copy of the KEK is not proven")
        return [
            held[name] for name, result in found.items() if isinstance(result, bytes) and compare_digest(result, kek)
        ]

    def _recover_kek(self, wrapped: WrappedSystemKey, old_master_keys: Iterable[str]) -> bytes:
        """Return the KEK, from a configured region or else from one of ``old_master_keys``."""
        try:
            kek, key = self._unwrap(wrapped, self._in_order())
        except KMSError as exc:
            kek, key = self._unwrap_with_old(wrapped, old_master_keys, exc)
        wipe(key)
        return kek

    def _unwrap(self, wrapped: WrappedSystemKey, regions: Iterable[Region]) -> tuple[bytes, bytearray]:
        """Return the KEK and the system key from the first of ``regions`` that can open them."""
        failures: dict[str, Exception] = {}
        for region in regions:
            for entry in wrapped.kms_keks:
                if entry.region == region.name:
                    opened = _open_with(region, entry, wrapped.encrypted_key)
                    if not isinstance(opened, Exception):
                        return opened
                    failures[region.name] = opened
                    region.report(UNWRAP, opened, "the next region is asked")
            failures.setdefault(region.name, KMSError("the system key was not wrapped for this region"))
        raise KMSError(f"no region could unwrap the system key: {_list(failures)}", failures)

    def _unwrap_with_old(
        self, wrapped: WrappedSystemKey, names: Iterable[str], error: KMSError
    ) -> tuple[bytes, bytearray]:
        """Unwrap with the KEK of one of the master keys ``names``; raise ``error``, with their causes too, if none."""
        # Only those that the operator names: whoever writes to the key table could name a master key of their own.
        for name, entry in named_pairs(names, wrapped.kms_keks):
            opened = _open_with(self._region(entry.region, name, self._own.health), entry, wrapped.encrypted_key)
            if not isinstance(opened, Exception):
                return opened
            error.failures[name if name == entry.arn else f"{name} in {entry.region}"] = opened
        raise KMSError(f"no region could unwrap the system key: {_list(error.failures)}", error.failures)

    def _in_order(self) -> list[Region]:
        own = self._own
        return [own.regions[name] for name in own.health.order(self.master_keys)]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self.master_keys)}>"


def _open_with(region: Region, entry: RegionKek, sealed: bytes) -> tuple[bytes, bytearray] | Exception:
    kek = region.unwrap(entry)
    if isinstance(kek, Exception):
        return kek
    try:
        return kek, Cipher(kek).open_key(sealed)
    except DecryptionError as exc:
        return exc.with_traceback(None)


def _same(some: list[RegionKek], others: list[RegionKek]) -> bool:
    return sorted(some, key=lambda kek: kek.region) == sorted(others, key=lambda kek: kek.region)


def _list(failures: Mapping[str, Exception]) -> str:
    return "; ".join(f"{region}: {type(cause).__name__}: {cause}" for region, cause in failures.items())
