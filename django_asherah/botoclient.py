"""A boto3 client: made once, when it is first needed."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from typing import Any

import boto3
from botocore.config import Config
from django.core.exceptions import ImproperlyConfigured

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
        _require_early_patching()
        session: Any = self._session() if callable(self._session) else self._session or boto3.Session()
        return session.client(
            self._service, region_name=self._region, endpoint_url=self._endpoint_url, config=self._config
        )


def _require_early_patching() -> None:
    """Refuse to make a client if gevent has replaced ``ssl`` after botocore had imported it.

    Every call would recurse into itself, and end in a ``RecursionError``.

    Raises:
        ImproperlyConfigured: it has.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("ssl"):
        return
    if import_module("botocore.httpsession").SSLContext is monkey.get_original("ssl", "SSLContext"):
        raise ImproperlyConfigured(
            "gevent's monkey.patch_all() was called after boto3 was imported: call it before every other import, with "
            "gunicorn at the top of its configuration file"
        )


_making = PerProcess(threading.Lock)
"""Held while a client is made: clients may share a session, and sessions are not thread-safe."""
