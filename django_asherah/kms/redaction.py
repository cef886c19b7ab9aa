"""Keeps data keys out of botocore's debug log and out of what hangs on its errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError

BODY_LOGGERS = ("botocore.endpoint", "botocore.parsers")
"""The loggers to which botocore writes the bodies of requests and responses, at DEBUG."""

_thread = threading.local()


def _let_pass(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG or not getattr(_thread, "holds_key", False)


@contextmanager
def bodies_unlogged() -> Iterator[None]:
    """Drop what botocore would log about the bodies of the requests that this thread makes in the block.

    ``GenerateDataKey`` and ``Decrypt`` return an unwrapped data key, and ``Encrypt`` is sent one.
    """
    _thread.holds_key = True
    try:
        yield
    finally:
        _thread.holds_key = False


def redacted(error: Exception) -> Exception:
    """Return ``error`` without anything that may hold a data key.

    That is the tracebacks of its whole chain, whose frames hold requests and answers; and the body of an answer that
    does not come from KMS, which botocore takes for the message: a proxy's error page may quote the request.
    """
    if isinstance(error, ClientError) and not error.response["Error"].get("Code", "")[:1].isalpha():
        described: Any = {**error.response["Error"], "Message": "the answer is not from KMS"}
        error = ClientError({**error.response, "Error": described}, error.operation_name)
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


for name in BODY_LOGGERS:
    logging.getLogger(name).addFilter(_let_pass)
