"""A server as the network shows it: a TCP proxy in front of the real one, that can be told to break."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import connections


class TCPProxy:
    """Stands between a client and its server, and can be told to break."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._streams: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._cut_at: re.Pattern[bytes] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self._listener.getsockname()[1])
        self._refusing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def go_down(self) -> None:
        """Drop every connection, and each new one at once."""
        self._refusing = True
        for stream in self._streams:
            _close(stream)

    def refuse_connections(self) -> None:
        """Drop each new connection at once, and none that is open."""
        self._refusing = True

    def come_back(self) -> None:
        """Take connections again."""
        self._refusing = False

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Pass nothing on for the length of the block."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def cut_at(self, words: bytes) -> None:
        """Drop the connection that next sends ``words``, in capitals: nobody learns what came of them."""
        self._cut_at = re.compile(rb"(?<!AUTO)" + words + rb"(?!TED)")  # Nor is READ COMMITTED a COMMIT.

    @property
    def has_cut(self) -> bool:
        """Whether what :meth:`cut_at` waited for has come."""
        return self._cut_at is None

    def close(self) -> None:
        """Listen no more."""
        self._flowing.set()
        self.go_down()
        _close(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            if self._refusing:
                _close(client)
                continue
            server = socket.create_connection(self._server)
            self._streams += [client, server]
            for source, target, from_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, from_client), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                if from_client and self._cut_at and self._cut_at.search(data.upper()):
                    self._cut_at = None
                    _close(source)  # Before the server can answer.
                    target.sendall(data)
                    break
                target.sendall(data)
        except OSError:
            pass  # The other pump has closed it.
        _close(source)
        _close(target)


class DatabaseProxy(TCPProxy):
    """Stands between Django and the database server."""

    def __init__(self) -> None:
        at = connections["default"].settings_dict
        super().__init__(at["HOST"], int(at["PORT"]))


def _close(stream: socket.socket) -> None:
    with suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)
    stream.close()
