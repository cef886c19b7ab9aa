"""RabbitMQ, for the tests that need a real broker."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kombu import Connection

BROKER = os.environ.get("TEST_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")


@contextmanager
def own_queue() -> Iterator[str]:
    """Yield the name of a queue of the broker's own; where there is no broker, say so, and fail in CI."""
    try:
        with Connection(BROKER, connect_timeout=5) as connection:
            connection.ensure_connection(max_retries=1)
            name = f"asherah-test-{uuid.uuid4().hex}"
            yield name
            connection.default_channel.queue_delete(name)
    except OSError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"NOT RUN HERE: RabbitMQ does not answer at {BROKER.rpartition('@')[2]} ({exc})")
