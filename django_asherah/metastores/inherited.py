"""Database connections that were opened to read keys, and must not be used in a process that is forked afterwards.

A server may fork its workers after the keys were opened in its parent. Two of them that send queries on one connection
get each other's rows.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, cast
from weakref import WeakKeyDictionary

from django.core.signals import request_started
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.envelope.forksafe import PerProcess

_opened: WeakKeyDictionary[BaseDatabaseWrapper, tuple[int, Any]] = WeakKeyDictionary()
"""By Django's connection, the process in which it was opened here, and the driver's own connection."""


def ensure_own(connection: BaseDatabaseWrapper) -> None:
    """Open this thread's connection, unless it is open and was opened in this process."""
    _own.get()
    if connection.connection is None:
        connection.ensure_connection()
        # A database in memory is the child's own already, and all there is of it hangs on the connection.
        if connection.vendor != "sqlite" or not cast(Any, connection).is_in_memory_db():
            _opened[connection] = (os.getpid(), connection.connection)


def _put_aside_inherited() -> None:
    for connection, (process, opened) in list(_opened.items()):
        if process != os.getpid():
            del _opened[connection]
            _keep_for_ever(opened)
            if connection.connection is opened:
                connection.connection = cast(Any, None)


def _keep_for_ever(inherited: object) -> None:
    # As it is dropped, mysqlclient's connection ends the parent's session on the server: even as Python ends.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


_own = PerProcess(_put_aside_inherited)


def _begin_request(**kwargs: Any) -> None:
    _own.get()


_own.get()
request_started.connect(_begin_request, dispatch_uid="django_asherah.inherited")
