"""A boto3 client's connections, as the server sees them."""

from __future__ import annotations

import http.server
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.databases import ROOT
from tests.faults.processes import CREDENTIALS
from tests.forking import FORKS

PROGRAM = """
import ctypes, os, sys
from django_asherah.botoclient import BotoClient

def ask(name):
    client.get().describe_key(KeyId=name)

client = BotoClient(
    "kms", region="eu-west-1", endpoint_url=sys.argv[1], connect_timeout=30, read_timeout=30, max_attempts=1
)
ask("before the fork")
child = FORK()
if not child:
    ask("in the child")
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
ask("after the child's end")
"""


def make_certificate(path: Path) -> Path:
    """Write a certificate of 127.0.0.1 and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of the tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def serving(certificate: Path | None) -> Iterator[tuple[str, list[list[str]]]]:
    """Run a server that keeps connections open; give its URL, and for each connection what was asked on it."""
    connections: list[list[str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.asked: list[str] = []
            connections.append(self.asked)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.asked.append(json.loads(body)["KeyId"])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    class Server(http.server.ThreadingHTTPServer):
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}", connections
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.PyDLL(None).fork"], ids=FORKS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_child_sends_nothing_on_its_parents_connection_not_even_as_it_ends(
    fork: str, scheme: str, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "server.pem") if scheme == "https" else None
    with serving(certificate) as (url, connections):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("FORK", fork), url],
            cwd=ROOT,
            env={**os.environ, **CREDENTIALS, **({"AWS_CA_BUNDLE": str(certificate)} if certificate else {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert connections == [["before the fork", "after the child's end"], ["in the child"]]
