"""A boto3 client: made once, when it is first needed."""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config

from django_asherah.envelope.forksafe import PerProcess


class BotoClient:
    """One boto3 client. Thread-safe; a forked child makes one of its own.

    Credentials come from boto3's own chain, or from the session given, and from nowhere else.

    Args:
        service: its name, as boto3 has it.
        session: a function without arguments that returns a ``boto3.Session``, which every process calls for itself; or
            a session, which forked processes share, with whatever renews its credentials; a new one if None.
        region: the AWS region; what boto3 finds if None.
        endpoint_url: a URL to use instead of AWS's own.
        connect_timeout, read_timeout: seconds.
        max_attempts: how often botocore itself makes a request.
    """

    def __init__(
        self,
        service: str,
        *,
        session: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        connect_timeout: float,
        read_timeout: float,
        max_attempts: int,
    ) -> None:
        self._service = service
        self._session = session
        self._region = region
        self._endpoint_url = endpoint_url
        self._config = Config(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries={"mode": "standard", "total_max_attempts": max_attempts},
        )
        self._made: PerProcess[list[Any]] = PerProcess(list)

    def get(self) -> Any:
        """Return the client."""
        made = self._made.get()
        if not made:
            with _making.get():
                if not made:
                    made.append(self._make())
        return made[0]

    def _make(self) -> Any:
        session: Any = self._session() if callable(self._session) else self._session or boto3.Session()
        return session.client(
            self._service, region_name=self._region, endpoint_url=self._endpoint_url, config=self._config
        )


_making = PerProcess(threading.Lock)
"""Held while a client is made: clients may share a session, and sessions are not thread-safe."""
