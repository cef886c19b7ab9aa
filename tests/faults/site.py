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
from django_asherah.envelope.session import SessionFactory  # noqa: E402
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


def database_session(request: HttpRequest) -> JsonResponse:
    """Write and read, and answer with the database server's number of the session of this worker, too."""
    answer = write_and_read(request.GET["text"], cold=False)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if cursor.db.vendor == "postgresql" else "SELECT CONNECTION_ID()")
        return JsonResponse({**answer, "session": cursor.fetchone()[0]})


async def async_note(request: HttpRequest) -> JsonResponse:
    """Do the same through Django's async interface."""
    written = await Note.objects.acreate(body=request.GET["text"])
    if "cold" in request.GET:
        engine.get_factory().clear()
    read = await Note.objects.aget(pk=written.pk)
    return JsonResponse({"pid": os.getpid(), "pk": written.pk, "text": read.body})


def new_keys(request: HttpRequest) -> JsonResponse:
    """Make a system key, for a service of this name, and seal and open the text under it with nothing in hand."""
    made, read = (
        SessionFactory(request.GET["service"], "tests", running.metastore, running.kms)
        for running in [engine.get_factory()] * 2
    )
    record = made.get_session("default").encrypt(request.GET["text"].encode())
    return JsonResponse({"pid": os.getpid(), "text": read.get_session("default").decrypt(record).decode()})


async def seal(request: HttpRequest) -> JsonResponse:
    """Seal and open in the event loop itself, with a key that is due for its check."""
    session = engine.get_session()
    engine.get_factory().require_checks()
    record = session.encrypt(request.GET["text"].encode())
    return JsonResponse(
        {"text": session.decrypt(record).decode(), "created": session.read(record).key.parent_key_meta.created}
    )


urlpatterns = [
    path("note", note),
    path("async-note", async_note),
    path("seal", seal),
    path("new-keys", new_keys),
    path("database-session", database_session),
]
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
    if os.environ.get("FAULTS_PRELOAD") != "leaving connections open":
        connections.close_all()


if os.environ.get("FAULTS_PRELOAD"):
    open_keys()


@signals.worker_init.connect
def open_keys_before_the_pool(**kwargs: Any) -> None:
    """Open them in the worker's main process too, which forks the pool."""
    open_keys()
