"""A small application for real servers: WSGI, ASGI and Celery. Its keys are in hand before any worker is forked."""

from __future__ import annotations

import os
from typing import Any

import django

django.setup()

from celery import Celery, signals  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from django_asherah import engine  # noqa: E402
from tests.testapp.models import Note  # noqa: E402


def write_and_read(text: str, *, cold: bool) -> dict[str, Any]:
    """Save a note and read it back; ``cold`` forgets every opened key in between, so that the KMS is asked."""
    pk = Note.objects.create(body=text).pk
    if cold:
        engine.get_factory().clear()
    return {"pid": os.getpid(), "parent": os.getppid(), "pk": pk, "text": Note.objects.get(pk=pk).body}


def note(request: HttpRequest) -> JsonResponse:
    """Answer with what was written and read, and by whom."""
    return JsonResponse(write_and_read(request.GET["text"], cold="cold" in request.GET))


async def async_note(request: HttpRequest) -> JsonResponse:
    """Do the same through Django's async interface."""
    written = await Note.objects.acreate(body=request.GET["text"])
    if "cold" in request.GET:
        engine.get_factory().clear()
    read = await Note.objects.aget(pk=written.pk)
    return JsonResponse({"pid": os.getpid(), "pk": written.pk, "text": read.body})


async def seal(request: HttpRequest) -> JsonResponse:
    """Seal and open in the event loop itself, with a key that is due for its check."""
    session = engine.get_session()
    engine.get_factory().require_checks()
    record = session.encrypt(request.GET["text"].encode())
    return JsonResponse(
        {"text": session.decrypt(record).decode(), "created": session.read(record).key.parent_key_meta.created}
    )


urlpatterns = [path("note", note), path("async-note", async_note), path("seal", seal)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()

celery = Celery("faults", broker=os.environ.get("TEST_BROKER_URL", ""), backend="rpc://")
celery.conf.update(
    task_default_queue=os.environ.get("FAULTS_QUEUE", "faults"),
    result_expires=60,
    broker_connection_retry_on_startup=False,
    worker_hijack_root_logger=False,
)


@celery.task
def note_task(text: str, *, cold: bool) -> dict[str, Any]:
    """Save a note and read it back in a worker."""
    return write_and_read(text, cold=cold)


def open_keys() -> None:
    """Have the keys in hand, and no connection that a forked worker would share."""
    engine.get_session().decrypt(engine.get_session().encrypt(b"before the fork"))
    connections.close_all()


if os.environ.get("FAULTS_PRELOAD"):
    open_keys()


@signals.worker_init.connect
def open_keys_before_the_pool(**kwargs: Any) -> None:
    """Open them in the worker's main process too, which forks the pool."""
    open_keys()
