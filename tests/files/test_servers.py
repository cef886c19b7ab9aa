"""A file that is found damaged on the way ends in a broken connection, with real servers."""

from __future__ import annotations

import http.client
import os

import pytest

from django_asherah.envelope.files import CHUNK_LENGTH
from tests.databases import VENDOR
from tests.faults.test_servers import running, wait_for
from tests.moto_servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VENDOR != "sqlite", reason="it uses no database"),
]

SERVERS = {
    "gunicorn": ["gunicorn", "tests.files.damaged_site:wsgi", "--workers=1", "--bind=127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "tests.files.damaged_site:asgi", "--port={port}"],
}


def download(port: int, name: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/{name}")
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Length"]) == (200, str(4 * CHUNK_LENGTH))
        return response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("server", SERVERS)
def test_a_whole_file_arrives_and_a_damaged_one_breaks_off(server: str) -> None:
    port = free_port()
    command = [word.format(port=port) for word in SERVERS[server]]
    with running(*command, env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}) as process:
        wait_for(port, process)
        assert download(port, "whole") == bytes(4 * CHUNK_LENGTH)
        with pytest.raises(http.client.IncompleteRead) as caught:
            download(port, "damaged")
        assert caught.value.partial == bytes(CHUNK_LENGTH)
