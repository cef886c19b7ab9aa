"""What tests of event loops share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import SynchronousOnlyOperation

from django_asherah import engine
from tests.testapp.models import Note


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run ``work`` in an event loop of its own with cold keys."""

    async def guarded() -> Any:
        asyncio.get_running_loop()
        with pytest.raises(SynchronousOnlyOperation):
            Note.objects.exists()
        return await work()

    engine.get_factory().clear()
    return async_to_sync(guarded)()


def make_note(**values: Any) -> Note:
    return Note.objects.create(**{"title": "t", "body": "x", "other_body": "y", **values})
