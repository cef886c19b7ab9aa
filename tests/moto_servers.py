"""KMS regions on loopback: a real moto server over HTTP for each, and servers that misbehave.

with moto_region("us-west-2") as server:
    server.url, server.arn
    server.kill()          # connections are refused from now on
    server.pause()         # accepts, and never answers; server.resume() ends it
"""

from __future__ import annotations

import http.server
import multiprocessing
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

# Importing moto takes two seconds: one process does it, and every server is forked from there.
SERVERS = multiprocessing.get_context("forkserver")
SERVERS.set_forkserver_preload(
    ["moto.server", "moto.kms.urls", "moto.dynamodb.urls", "moto.iam.access_control", "tests.moto_servers"]
)
ACCESS: dict[str, Any] = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class MotoRegion:
    """One region's KMS: a moto server process with one master key."""

    STARTED = "tests.moto_servers.MotoRegion"
    """The audit event of one that is started."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        sys.audit(self.STARTED)
        self._process = SERVERS.Process(target=_serve_moto, args=(self.port,), daemon=True)
        self._process.start()
        self._wait_until_it_listens()
        self.client = self.make_client("kms")
        self.arn: str = self.create_key()

    def make_client(self, service: str) -> Any:
        """Return a boto3 client of this server."""
        config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
        client: Any = boto3.client  # its stubs want the service's name to be a literal
        return client(service, region_name=self.region, endpoint_url=self.url, config=config, **ACCESS)

    def create_key(self) -> str:
        """Make another master key here; return its ARN."""
        return create_key(self.client)

    def kill(self) -> None:
        """Let every connection be refused, for good."""
        self.resume()
        self._process.kill()
        self._process.join()

    def pause(self) -> None:
        """Let connections be accepted and never answered."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        if self._process.is_alive():
            self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def _wait_until_it_listens(self) -> None:
        while self._process.is_alive():
            with socket.socket() as probe:
                probe.settimeout(0.05)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            self._process.join(0.05)
        raise RuntimeError(f"the moto server for {self.region} did not start")


def _serve_moto(port: int) -> None:
    from moto.moto_api._internal import mock_random
    from moto.server import main

    mock_random.seed()  # Or every fork would give its keys the same names.
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    main(["-H", "127.0.0.1", "-p", str(port)])


def create_key(client: Any) -> str:
    """Make a master key, with what moto would leave open and AWS never does; return its ARN."""
    made = client.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="SYMMETRIC_DEFAULT")
    return str(made["KeyMetadata"]["Arn"])


@contextmanager
def dynamodb_table(server: MotoRegion) -> Iterator[Any]:
    """Make the key table as the official SDKs lay it out; give a client of its server."""
    client = server.make_client("dynamodb")
    client.create_table(
        TableName="EncryptionKey",
        KeySchema=[{"AttributeName": "Id", "KeyType": "HASH"}, {"AttributeName": "Created", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "Id", "AttributeType": "S"},
            {"AttributeName": "Created", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    try:
        yield client
    finally:
        client.delete_table(TableName="EncryptionKey")


@contextmanager
def moto_region(region: str) -> Iterator[MotoRegion]:
    """Run one region's KMS for the length of the block."""
    server = MotoRegion(region)
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused_url() -> str:
    """Return a URL where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


class FaultServer:
    """Counts the requests it gets and gives every one the same answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/x-amz-json-1.1") -> Iterator[FaultServer]:
    """Run a server that answers every request with ``status`` and ``body``, whose content type is ``kind``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fault.requests += 1
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fault = FaultServer(f"http://127.0.0.1:{server.server_port}")
        with _serving(server):
            yield fault


def failing_as(code: str, status: int = 400) -> Any:
    """Run a server that answers with a KMS error, for example ``AccessDeniedException``."""
    return answering(status, b'{"__type": "%s", "message": "so it is"}' % code.encode())


@contextmanager
def stalled() -> Iterator[FaultServer]:
    """Run a server that accepts connections and never answers."""
    released = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            fault.requests += 1
            released.wait()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        fault = FaultServer(f"http://127.0.0.1:{server.server_address[1]}")
        with _serving(server, released.set):
            yield fault


_ANSWER = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 1000000\r\n\r\n{", b" "),
}
"""The beginning of an answer that stops within this part of it, and what goes on to come, byte for byte."""


@contextmanager
def dripping(part: str = "body") -> Iterator[FaultServer]:
    """Run a server whose answers never end: within ``part`` of each, a byte comes every tenth of a second."""
    released = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            fault.requests += 1
            drip(self.request, part, released)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        fault = FaultServer(f"http://127.0.0.1:{server.server_address[1]}")
        with _serving(server, released.set):
            yield fault


def drip(connection: socket.socket, part: str, released: threading.Event) -> None:
    """Send the beginning of an answer, and a byte of ``part`` every tenth of a second until ``released``."""
    beginning, byte = _ANSWER[part]
    with suppress(OSError):  # Whoever asked has gone.
        connection.sendall(beginning)
        while not released.wait(0.1):
            connection.sendall(byte)


@contextmanager
def _serving(server: socketserver.BaseServer, before_end: Callable[[], None] = lambda: None) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        before_end()
        server.shutdown()
        thread.join()


def session() -> boto3.Session:
    """Return a session with credentials that moto takes."""
    return boto3.Session(**ACCESS)
