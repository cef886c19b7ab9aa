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
    return record.levelno > logging.DEBUG or not getattr(_thread, "quiet", False)


@contextmanager
def no_bodies() -> Iterator[None]:
    """Drop what botocore would write about the body of a request that this thread makes in the block.

    A data key is in clear in what ``GenerateDataKey`` and ``Decrypt`` answer, and in what ``Encrypt`` is asked.
    """
    _thread.quiet = True
    try:
        yield
    finally:
        _thread.quiet = False


def safe(error: Exception) -> Exception:
    """Return ``error`` without what may hold a data key.

    That is the tracebacks of its whole chain, whose frames hold requests and answers; and the body of an answer that
    does not come from KMS, which botocore takes for the message: a proxy's error page may quote the request.
    """
    if isinstance(error, ClientError) and not error.response["Error"].get("Code", "")[:1].isalpha():
        said: Any = {**error.response["Error"], "Message": "the answer is not from KMS"}
        error = ClientError({**error.response, "Error": said}, error.operation_name)
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


for name in BODY_LOGGERS:
    logging.getLogger(name).addFilter(_let_pass)
