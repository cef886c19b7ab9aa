"""A KMS over pretended hardware modules, which have nothing of AWS: quick, and failing as the test says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from django_asherah.envelope.aead import Cipher
from django_asherah.envelope.interfaces import RegionFailed
from django_asherah.kms.master_key import Failure
from django_asherah.kms.multi_region import MultiRegionKMS

KEY = bytes(range(32))
KEK = b"K3K-canary-0123456789abcdef-KEK!"
NAMES = {"zurich": "pkcs11:object=a", "bern": "pkcs11:object=b", "basel": "pkcs11:object=c"}


class BusyError(Exception):
    """The module answers that it can't answer now."""


class SilentError(Exception):
    """The module does not answer in time."""


class Module:
    """A hardware module's master key: a ``MasterKey`` that has nothing of AWS."""

    def __init__(self, name: str, modules: Modules) -> None:
        self.name = name
        self._modules = modules
        self._cipher = Cipher(sha256(name.encode()).digest())

    def make_kek(self) -> tuple[bytes, bytes]:
        self._answer("make", KEK)
        return self._modules.answers.get(self.name, (KEK, self._seal(KEK)))

    def wrap(self, kek: bytes) -> bytes:
        self._answer("wrap", kek)
        return self._modules.answers.get(self.name, (b"", self._seal(kek)))[1]

    def unwrap(self, wrapped: bytes) -> bytes:
        kek = self._cipher.open(wrapped)
        self._answer("unwrap", kek)
        return self._modules.answers.get(self.name, (kek, b""))[0]

    def find_problem(self) -> str:
        self._answer("look", b"")
        return self._modules.problems.get(self.name, "")

    def explain(self, error: Exception) -> Failure:
        return Failure(
            type(error).__name__, is_passing=isinstance(error, BusyError), is_timeout=isinstance(error, SilentError)
        )

    def redact(self, error: Exception) -> Exception:
        return error.with_traceback(None)

    def _seal(self, kek: bytes) -> bytes:
        return self._cipher.seal(self._modules.lies.get(self.name, kek))

    def _answer(self, what: str, held: bytes) -> None:
        self._modules.asked.append((self.name, what))
        self._modules.meanwhile(self.name, what)
        failures = self._modules.failures.get(self.name, [])
        if failures:
            raise failures.pop(0) if len(failures) > 1 else failures[0]


class Modules:
    """Makes KMS objects over modules, and says how these fail: each error once, the last one for good.

    ``lies`` maps master keys to the KEK that they wrap, whatever they are given or have made.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.failures: dict[str, list[Exception]] = {}
        self.problems: dict[str, str] = {}
        self.answers: dict[str, tuple[Any, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.events: list[Any] = []
        self.meanwhile: Callable[[str, str], None] = lambda name, what: None
        self.pauses: list[float] = []
        self.lies: dict[str, bytes] = {}

    def kms(self, names: dict[str, str] = NAMES, preferred: str = "zurich", **options: Any) -> MultiRegionKMS:
        make_key = lambda region, name: Module(name, self)  # noqa: E731
        defaults: dict[str, Any] = {
            "on_event": self.events.append,
            "clock": lambda: self.now,
            "sleep": self.pauses.append,
            "random": lambda: 0.5,
        }
        return MultiRegionKMS(names, preferred, make_key, **(defaults | options))

    def fail(self, region: str, *errors: Exception) -> None:
        self.failures[NAMES[region]] = list(errors)

    def meet(self, what: str, *regions: str) -> None:
        """Let each of these regions answer ``what`` only when all of them are asked at the same time."""
        barrier, names = threading.Barrier(len(regions)), {NAMES[region] for region in regions}

        def wait(name: str, asked: str) -> None:
            if asked == what and name in names:
                barrier.wait()

        self.meanwhile = wait

    def asked_regions(self) -> list[str]:
        regions = {name: region for region, name in NAMES.items()}
        asked, self.asked = [regions[name] for name, _ in self.asked], []
        return asked

    def failed(self) -> list[tuple[str, str]]:
        return [(event.region, event.operation) for event in self.events if isinstance(event, RegionFailed)]
