"""AWS Lambda with the handler that the page shows: frozen and thawed, and restored into copies as SnapStart does."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_asherah import lifecycle
from django_asherah.models import EncryptionKey
from tests.databases import ROOT, execute
from tests.faults.database_proxy import TCPProxy
from tests.faults.processes import on_aws
from tests.faults.proxy import Proxies
from tests.faults.test_servers import WEST
from tests.moto_servers import MotoRegion


class Environment:
    """One execution environment of the function."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.answer()

    def tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, text: str) -> dict[str, Any]:
        self.tell(text=text)
        answer: dict[str, Any] = self.answer()
        assert answer["text"] == text
        return answer


@contextmanager
def started(env: dict[str, str]) -> Iterator[Environment]:
    command = [sys.executable, "-m", "tests.deploy.lambda_runtime"]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Environment(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0


def record_of(answer: dict[str, Any]) -> dict[str, Any]:
    ((text,),) = execute("default", "SELECT body FROM testapp_note WHERE id = %s", [answer["pk"]])
    return json.loads(text) if isinstance(text, str) else text


def newest_key() -> int:
    return int(EncryptionKey.objects.filter(key_id__startswith="_IK_").latest("created").created.timestamp())


def test_an_environment_asks_the_kms_once(env: dict[str, str], proxies: Proxies) -> None:
    with started(env) as function:
        for number in range(3):
            function.ask(f"text-{number}")
    assert proxies.taken_counts() == {WEST: {"Decrypt": 1}}


def test_the_keys_are_looked_at_again_after_the_environment_was_frozen(env: dict[str, str], proxies: Proxies) -> None:
    with started(env) as function:
        before = record_of(function.ask("before"))
        lifecycle.rotate()
        proxies.taken_counts()
        assert record_of(function.ask("meanwhile"))["Key"]["ParentKeyMeta"] == before["Key"]["ParentKeyMeta"]

        function.tell(thaw=120)
        after = record_of(function.ask("after"))

    assert after["Key"]["ParentKeyMeta"]["Created"] == newest_key() > before["Key"]["ParentKeyMeta"]["Created"]
    assert proxies.taken_counts() == {WEST: {"Decrypt": 1}}


def test_the_first_call_over_a_connection_that_died_meanwhile_succeeds(
    env: dict[str, str], proxies: Proxies, west: MotoRegion
) -> None:
    network = TCPProxy("127.0.0.1", west.port)
    asherah = on_aws(proxies)
    asherah["KMS_OPTIONS"]["endpoint_urls"][WEST] = f"http://127.0.0.1:{network.port}"
    try:
        with started(env | {"ASHERAH_FAULTS": json.dumps(asherah)}) as function:
            function.ask("before")
            lifecycle.rotate()
            network.cut_at(b"POST")
            proxies.taken_counts()
            function.tell(thaw=7200)
            after = record_of(function.ask("after"))
        assert network.has_cut
    finally:
        network.close()
    assert after["Key"]["ParentKeyMeta"]["Created"] == newest_key()
    assert proxies.taken_counts() == {}  # No other region was asked in its place.


@pytest.mark.parametrize(("opened", "calls"), [(False, 3), (True, 1)], ids=["no key", "keys"])
def test_copies_of_a_snapshot_draw_keys_and_nonces_of_their_own(
    opened: bool, calls: int, env: dict[str, str], proxies: Proxies
) -> None:
    texts = ["one", "two", "three"]
    with started(env | ({"OPEN_KEYS": "1"} if opened else {})) as function:
        function.tell(copies=texts)
        answers = [function.answer() for _ in texts]

    assert [answer["text"] for answer in answers] == texts
    assert {answer["pid"] for answer in answers} == {1}
    records = [record_of(answer) for answer in answers]
    sealed = [b64decode(part) for record in records for part in (record["Key"]["Key"], record["Data"])]
    assert len({part[-12:] for part in sealed}) == len(sealed)
    assert proxies.taken_counts() == {WEST: {"Decrypt": calls}}
