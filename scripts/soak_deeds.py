"""What the load test's conductor does to keys, regions, clocks, processes and the database, in random order."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from struct import pack_into
from typing import Any

from django.conf import settings
from django.db import connections
from django.test.utils import override_settings

from django_asherah import engine, lifecycle
from scripts.soak_server import DatabaseServer
from tests.faults.proxy import FAULTS, Proxies

HOUR, DAY = 3600, 24 * 3600
CLOCKS = (0, 0, HOUR, -HOUR, 100 * DAY, -100 * DAY, 400 * DAY)
"""Seconds by which a process's clock may be wrong."""

STALLS = ("accepts and never answers", "connection refused", "5xx", "throttling")


class Writers:
    """The writing processes."""

    def __init__(self, folder: Path, number: int, chance: random.Random) -> None:
        self._folder, self._chance = folder, chance
        self._processes = [self._start(each) for each in range(number)]

    def kill_one(self) -> None:
        """End one without a word, and start another in its place."""
        number = self._chance.randrange(len(self._processes))
        self._processes[number].kill()
        self._processes[number].wait()
        self._processes[number] = self._start(number)

    def stop(self) -> None:
        """Let all end what they are doing."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(timeout=120)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        seed = self._chance.randrange(2**32)
        with (self._folder / "logs" / str(number)).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "scripts.soak_writer", str(self._folder), str(number), str(seed)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )


class Conductor:
    """Does one deed after the other; a stalled region is one beside the next deeds.

    Attributes:
        done: how often each deed was done.
        errors: what kept one from being done, by class.
    """

    def __init__(
        self, chance: random.Random, writers: Writers, server: DatabaseServer, proxies: Proxies, clocks: mmap
    ) -> None:
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._chance = chance
        self._proxies, self._clocks = proxies, clocks
        self._stall = threading.Thread()
        self._deeds: dict[str, Callable[[], Any]] = {
            "rotations": lifecycle.rotate,
            "complete re-encryptions": reencrypt,
            "intermediate keys revoked": lambda: lifecycle.revoke(f"_IK_{self._partition()}_suite_tests"),
            "system keys revoked": lambda: lifecycle.revoke("_SK_suite_tests"),
            "re-wraps for fewer regions": self._rewrap_for_fewer,
            "re-wraps for all regions": rewrap,
            "region stalls": self._stall_regions,
            "clock jumps": self._move_a_clock,
            "writers killed": writers.kill_one,
            "database restarts": server.restart,
        }

    def run(self, seconds: float) -> None:
        """Do deeds for so long: each of them once, and then whatever comes."""
        end = time.monotonic() + seconds
        first = self._chance.sample(list(self._deeds), len(self._deeds))
        while time.monotonic() < end:
            name = first.pop() if first else self._chance.choice(list(self._deeds))
            try:
                self._deeds[name]()
                self.done[name] += 1
            except Exception as exc:
                self.errors[f"{name}: {type(exc).__name__}"] += 1
                connections.close_all()
            time.sleep(self._chance.random())

    def finish(self) -> None:
        """Put everything right that a deed has left, and leave all values under the newest keys."""
        if self._stall.ident:
            self._stall.join()
        connections.close_all()
        engine.reset()
        rewrap()
        reencrypt()

    def _partition(self) -> str:
        return self._chance.choice(["default", "member-0", "member-1", "member-2"])

    def _rewrap_for_fewer(self) -> None:
        now: dict[str, Any] = settings.ASHERAH
        regions = dict(self._chance.sample(list(now["REGIONS"].items()), 2))
        urls = {region: now["KMS_OPTIONS"]["endpoint_urls"][region] for region in regions}
        options = {**now["KMS_OPTIONS"], "endpoint_urls": urls}
        fewer = {**now, "REGIONS": regions, "PREFERRED_REGION": next(iter(regions)), "KMS_OPTIONS": options}
        with override_settings(ASHERAH=fewer):
            rewrap()

    def _stall_regions(self) -> None:
        if self._stall.ident:
            self._stall.join()
        regions = self._chance.sample(self._proxies.regions, self._chance.randint(1, len(self._proxies.regions)))
        fault, seconds = FAULTS[self._chance.choice(STALLS)], self._chance.uniform(1, 8)

        def stall() -> None:
            with self._proxies.broken(regions, fault):
                time.sleep(seconds)

        self._stall = threading.Thread(target=stall)
        self._stall.start()

    def _move_a_clock(self) -> None:
        pack_into("d", self._clocks, 8 * self._chance.randrange(len(self._clocks) // 8), self._chance.choice(CLOCKS))


def reencrypt() -> None:
    """Rewrite every value, under the load."""
    report = lifecycle.reencrypt()
    if report.bad:
        raise BadValuesError(str(report.bad[:5]))


def rewrap() -> None:
    """Wrap every system key for the configured regions."""
    if failed := lifecycle.rewrap().failed:
        raise NotRewrappedError(str(failed))


class BadValuesError(Exception):
    """Values were left that do not open."""


class NotRewrappedError(Exception):
    """System keys were left as they are wrapped."""
