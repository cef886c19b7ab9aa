"""Inheritance and asynchronous code."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import path

from tests.fields.helpers import opened
from tests.testapp.models import Child, Note, Parent, ParentProxy


@pytest.mark.django_db
def test_abstract_multi_table_and_proxy_models() -> None:
    child = Child.objects.create(secret="of the abstract base", child_secret="of the child")
    assert opened(child, "secret") == b"of the abstract base"
    assert opened(child, "child_secret") == b"of the child"
    assert Parent.objects.get().secret == ParentProxy.objects.get().secret == "of the abstract base"
    ParentProxy.objects.update(secret="changed")
    assert Child.objects.select_related("parent_ptr").get().parent_ptr.secret == "changed"


@pytest.mark.django_db(transaction=True)
def test_the_asynchronous_orm() -> None:
    async_to_sync(work)()


async def work() -> None:
    note = await Note.objects.acreate(body="a")
    assert (await Note.objects.aget(pk=note.pk)).body == "a"
    await Note.objects.filter(pk=note.pk).aupdate(body="b")
    assert [note.body async for note in Note.objects.all()] == ["b"]
    note.body = "c"
    await note.asave()
    await note.arefresh_from_db()
    assert note.body == "c"
    notes = await Note.objects.abulk_create([Note(body=str(number)) for number in range(3)])
    assert sorted([body async for body in Note.objects.values_list("body", flat=True)]) == ["0", "1", "2", "c"]
    assert [note.body async for note in Note.objects.order_by("-pk").aiterator()] == ["2", "1", "0", "c"]
    for other in notes:
        other.body = "new"
    await Note.objects.abulk_update(notes, ["body"])
    assert {note.body for note in (await Note.objects.ain_bulk()).values()} == {"c", "new"}
    changed, is_new = await Note.objects.aupdate_or_create(pk=note.pk, defaults={"body": "d"})
    assert (changed.body, is_new) == ("d", False)
    made, is_new = await Note.objects.aget_or_create(title="only one", defaults={"body": "e"})
    assert (made.body, is_new) == ("e", True)
    await note.visits.acreate(remark="f")
    assert (await note.visits.select_related("note").afirst()).note.body == "d"
    with pytest.raises(FieldError, match="is encrypted"):
        await Note.objects.filter(body="d").aexists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls("tests.ecosystem.suite.test_django")
def test_coroutines_at_the_same_time() -> None:
    async def create() -> list[str]:
        client = AsyncClient()
        responses = await asyncio.gather(*(client.get("/create/", {"body": str(number)}) for number in range(20)))
        return [response.content.decode() for response in responses]

    assert async_to_sync(create)() == [str(number) for number in range(20)]
    for note in Note.objects.all():
        assert opened(note, "body") == note.title.encode()


async def create_and_read(request: HttpRequest) -> HttpResponse:
    body = request.GET["body"]
    note = await Note.objects.acreate(title=body, body=body)
    return HttpResponse((await Note.objects.aget(pk=note.pk)).body or "")


urlpatterns = [path("create/", create_and_read)]
