"""A stand-in for AWS Lambda: it imports the handler, and is frozen, thawed and copied as a microVM would be.

Each line on stdin is a command in JSON, each line on stdout an answer:

- ``{"text": "..."}`` calls the handler, which saves a note and reads it back.
- ``{"thaw": seconds}`` lets the wall clock have gone on meanwhile. The timer has not, as in a microVM that stood still.
- ``{"copies": ["...", ...]}`` restores as many copies of the process as it is now; each calls the handler once.

What differs from Lambda: a copy is a process that was cloned without any hook at a fork, with the same process id, its
first thread alone, and the same sockets, none of which is used by two of them. It never leaves this machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.deploy.servers import DEPLOYING

CLONE, NEW_PROCESS_IDS = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x20000000


def run_copy(work: Callable[[], None]) -> None:
    """Run ``work`` in a copy of this process, to its end."""
    copy = ctypes.CDLL(None, use_errno=True).syscall(CLONE, NEW_PROCESS_IDS | signal.SIGCHLD, 0, 0, 0, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "no copy can be made")
    if copy == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    if os.waitpid(copy, 0)[1]:
        raise SystemExit("the copy has failed")


def main() -> None:
    """Import the handler, open the keys if that is asked for, and do what the lines say."""
    import django

    django.setup()

    from django.db import connections

    from django_asherah import engine

    frozen_for = 0.0
    engine.use_clock(lambda: time.time() + frozen_for)
    handler = runpy.run_path(str(DEPLOYING / "lambda_function.py"))["handler"]
    if "OPEN_KEYS" in os.environ:
        engine.get_factory().current_keys(["default"])
        connections.close_all()

    def answer(text: str) -> None:
        print(json.dumps(json.loads(handler(event(text), None)["body"])), flush=True)

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        match json.loads(line):
            case {"text": text}:
                answer(text)
            case {"thaw": seconds}:
                frozen_for += seconds
            case {"copies": texts}:
                for text in texts:
                    run_copy(lambda text=text: answer(text))


def event(text: str) -> dict[str, Any]:
    """Return a request as API Gateway sends it."""
    http = {"method": "GET", "path": "/async-note", "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
    return {
        "version": "2.0",
        "rawPath": "/async-note",
        "rawQueryString": f"text={text}",
        "headers": {"host": "127.0.0.1"},
        "requestContext": {"http": http, "domainName": "127.0.0.1"},
        "isBase64Encoded": False,
    }


if __name__ == "__main__":
    run_copy(main)  # So that it has the process id that its copies will have.
