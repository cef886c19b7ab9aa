"""A KMS region as the network shows it: an HTTP proxy that counts what passes, and can be told to break."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.moto_servers import MotoRegion, drip


@dataclass(frozen=True)
class Fault:
    """One way of failing.

    Attributes:
        cause: what the error must say of a region that fails like this.
        status, body: the answer; none ever comes if ``status`` is 0.
        refuses: connections are refused.
        drips: an answer begins, and goes on a byte at a time for ever.
        only: the one KMS action that fails; all if empty.
    """

    cause: str
    status: int = 0
    body: bytes = b""
    refuses: bool = False
    drips: bool = False
    only: str = ""


def _says(code: str, status: int = 400) -> Fault:
    return Fault(code, status, json.dumps({"__type": code, "message": "so it is"}).encode())


REFUSED = Fault("EndpointConnectionError", refuses=True)
STALLED = Fault("ReadTimeoutError")
DRIPPING = Fault("DeadlineError", drips=True)
FAULTS = {
    "connection refused": REFUSED,
    "accepts and never answers": STALLED,
    "answers a byte at a time": DRIPPING,
    "5xx": _says("KMSInternalException", 500),
    "5xx without a word": Fault("503", 503),
    "throttling": _says("ThrottlingException"),
    "access denied": _says("AccessDeniedException"),
    "key disabled": _says("DisabledException"),
    "key pending deletion": _says("KMSInvalidStateException"),
    "wrong key": _says("IncorrectKeyException"),
    "garbage": Fault("", 200, b"\xff\xfe<html>"),
    "no members": Fault("its answer holds no", 200, b"{}"),
    "another data key": Fault(
        "DecryptionError", 200, json.dumps({"Plaintext": b64encode(bytes(32)).decode()}).encode(), only="Decrypt"
    ),
}


class RegionProxy:
    """Passes requests on to one region's moto server, unless :meth:`broken` says otherwise. Runs in threads.

    With ``keep_alive``, which is for proxies that don't break, a connection serves one request after the other, as
    AWS's do and moto's don't.
    """

    def __init__(self, server: MotoRegion, *, keep_alive: bool = False) -> None:
        self.region = server.region
        self.arn = server.arn
        self._server = server
        self._protocol = "HTTP/1.1" if keep_alive else "HTTP/1.0"
        self._fault: Fault | None = None
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._port = 0
        self._open()
        self.url = f"http://127.0.0.1:{self._port}"

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        """Fail like this for the length of the block."""
        self._released.clear()
        self._fault = fault
        if fault.refuses:
            self.close()
        try:
            yield
        finally:
            self._fault = None
            self._released.set()
            if fault.refuses:
                self._open()

    def taken_counts(self) -> dict[str, int]:
        """Return how many requests of each KMS action came since this was last asked."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return dict(counts)

    def close(self) -> None:
        """Listen no more."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes] | None:
        """Return the status and the body for a request, or None to hang up without an answer."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        action = handler.headers.get("X-Amz-Target", "").rpartition(".")[2]
        with self._lock:
            self._counts[action] += 1
        fault = self._fault
        if fault is None or fault.only not in ("", action):
            return self._pass_on(handler, body)
        if fault.drips:
            drip(handler.connection, "body", self._released)
            return None
        if not fault.status:
            self._released.wait()
            return None
        return fault.status, fault.body

    def _pass_on(self, handler: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        onward = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=30)
        try:
            onward.request("POST", handler.path, body, dict(handler.headers))
            response = onward.getresponse()
            return response.status, response.read()
        finally:
            onward.close()

    def _open(self) -> None:
        self._listener = _Listener(("127.0.0.1", self._port), _handler(self, self._protocol))
        self._port = self._listener.server_port
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()


class _Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    block_on_close = False


def _handler(proxy: RegionProxy, protocol: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_POST(self) -> None:
            answer = proxy.answer(self)
            if answer is None:
                return
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


class Proxies:
    """Every region's proxy, the preferred one first."""

    def __init__(self, servers: list[MotoRegion], *, keep_alive: bool = False) -> None:
        self.by_region = {server.region: RegionProxy(server, keep_alive=keep_alive) for server in servers}
        self.regions = list(self.by_region)

    @property
    def options(self) -> dict[str, dict[str, str] | str]:
        """``REGIONS`` and ``PREFERRED_REGION`` for ``settings.ASHERAH``."""
        return {
            "REGIONS": {region: proxy.arn for region, proxy in self.by_region.items()},
            "PREFERRED_REGION": self.regions[0],
        }

    @property
    def urls(self) -> dict[str, str]:
        """``endpoint_urls`` for the options of the AWS KMS."""
        return {region: proxy.url for region, proxy in self.by_region.items()}

    @contextmanager
    def broken(self, regions: list[str], fault: Fault) -> Iterator[None]:
        """Let these regions fail for the length of the block."""
        with ExitStack() as stack:
            for region in regions:
                stack.enter_context(self.by_region[region].broken(fault))
            yield

    def taken_counts(self) -> dict[str, dict[str, int]]:
        """Return the requests of each region since this was last asked; those that got none are left out."""
        counts = {region: proxy.taken_counts() for region, proxy in self.by_region.items()}
        return {region: count for region, count in counts.items() if count}

    def close(self) -> None:
        """Listen no more."""
        for proxy in self.by_region.values():
            proxy.close()
