"""PartitionGuardMiddleware: views and streams run under the guard of the request's partitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.test.client import RequestFactory
from django.urls import path
from pytest_django import Settings

from django_asherah.exceptions import PartitionMismatchError
from django_asherah.guard import allowed_partitions, partition_guard
from django_asherah.middleware import PartitionGuardMiddleware
from tests.databases import as_asherah
from tests.testapp.models import Note

pytestmark = pytest.mark.urls(__name__)


def clinic_of(request: HttpRequest) -> Any:
    if "refused" in request.GET:
        raise PermissionDenied("no clinic of yours")
    return request.GET.getlist("clinic") or None


async def clinic_of_async(request: HttpRequest) -> Any:
    await asyncio.sleep(0)
    return clinic_of(request)


def wrong(request: HttpRequest) -> Any:
    return RETURNED[request.GET["wrong"]]


RETURNED: dict[str, Any] = {
    "int": 7,
    "bool": True,
    "bytes": b"clinic-7",
    "list": ["clinic-7", None],
    "one": "clinic-7",
    "none": (),
    "set": {"clinic-7", "default"},
}


def active() -> str:
    """Return the partitions of the guard that is active here; "-" if none is."""
    allowed = allowed_partitions.get()
    return "-" if allowed is None else ",".join(sorted(allowed))


def look(request: HttpRequest) -> HttpResponse:
    return HttpResponse(active())


async def look_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(active())


def read_notes(request: HttpRequest) -> HttpResponse:
    return HttpResponse(",".join(str(note.body) for note in Note.objects.all()))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for number in range(2):
            yield f"{number}:{active()};"

    return StreamingHttpResponse(parts())


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(2):
            await asyncio.sleep(0)
            yield f"{number}:{active()};"

    return StreamingHttpResponse(parts())


class Failing:
    """A file that is read under whatever guard there is, and then breaks."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed = 0

    def read(self, length: int) -> bytes:
        self.seen.append(active())
        if len(self.seen) > 1:
            raise OSError("it broke")
        return b"part"

    def close(self) -> None:
        self.closed += 1


urlpatterns = [
    path("look", look),
    path("look-async", look_async),
    path("notes", read_notes),
    path("stream", stream),
    path("stream-async", stream_async),
]
BOTH = ["tests.test_middleware.clinic_of", "tests.test_middleware.clinic_of_async"]


def with_function(settings: Settings, function: str) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory", PARTITION_GUARD=function)
    settings.MIDDLEWARE = ["django_asherah.middleware.PartitionGuardMiddleware"]


@pytest.fixture(params=BOTH, ids=["sync function", "async function"])
def function(request: pytest.FixtureRequest, settings: Settings) -> str:
    with_function(settings, request.param)
    return str(request.param)


@pytest.fixture(params=["WSGI", "ASGI"])
def get(request: pytest.FixtureRequest) -> Any:
    """Get a URL through Django's whole stack of either kind; return status and content."""

    def get(url: str) -> tuple[int, str]:
        response = Client().get(url)
        return response.status_code, b"".join(response).decode()

    async def get_async(url: str) -> tuple[int, str]:
        response: Any = await AsyncClient().get(url)
        parts = [part async for part in response] if response.streaming else [response.content]
        return response.status_code, b"".join(parts).decode()

    return get if request.param == "WSGI" else lambda url: asyncio.run(get_async(url))


@pytest.mark.usefixtures("function")
class TestRequests:
    @pytest.mark.parametrize("view", ["look", "look-async"])
    def test_run_under_the_guard_of_their_partitions_and_no_longer(self, get: Any, view: str) -> None:
        assert get(f"/{view}?clinic=clinic-7") == (200, "clinic-7")
        assert get(f"/{view}?clinic=clinic-7&clinic=default") == (200, "clinic-7,default")
        assert get(f"/{view}") == (200, "-")
        assert active() == "-"

    def test_that_the_function_refuses_reach_no_view(self, get: Any) -> None:
        assert get("/look?refused")[0] == 403
        assert active() == "-"

    def test_are_inside_of_a_guard_that_is_active_already(self, get: Any) -> None:
        with partition_guard("clinic-7", "default"):
            assert get("/look?clinic=default") == (200, "default")
            with pytest.raises(PartitionMismatchError, match="may only narrow"):
                get("/look?clinic=clinic-8")

    @pytest.mark.parametrize("view", ["stream", "stream-async"])
    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
    def test_keep_it_while_their_response_is_streamed(self, get: Any, view: str) -> None:
        assert get(f"/{view}?clinic=clinic-7") == (200, "0:clinic-7;1:clinic-7;")
        assert get(f"/{view}") == (200, "0:-;1:-;")

    def test_that_run_at_once_have_guards_of_their_own(self) -> None:
        async def both() -> list[bytes]:
            client = AsyncClient()
            urls = [f"/look-async?clinic=clinic-{number}" for number in range(20)]
            responses: list[Any] = await asyncio.gather(*(client.get(url) for url in urls))
            return [response.content for response in responses]

        assert asyncio.run(both()) == [f"clinic-{number}".encode() for number in range(20)]


@pytest.mark.django_db
def test_a_view_that_forgot_its_tenant_filter_is_found(settings: Settings) -> None:
    with_function(settings, BOTH[0])
    Note.objects.create(body="secret")
    assert Client().get("/notes?clinic=default").content == b"secret"
    with pytest.raises(
        PartitionMismatchError, match=r"^testapp\.Note\.body\b.*: partition 'default' is outside the active"
    ):
        Client().get("/notes?clinic=clinic-7")


class TestStreams:
    @pytest.fixture
    def middleware(self, settings: Settings) -> Any:
        with_function(settings, BOTH[0])

        def respond(response: Any) -> Any:
            return PartitionGuardMiddleware(lambda request: response)(RequestFactory().get("/?clinic=clinic-7"))

        return respond

    def test_the_guard_is_not_left_to_whoever_iterates(self, middleware: Any) -> None:
        response = middleware(stream(RequestFactory().get("/")))
        seen = [(part.decode(), active()) for part in response.streaming_content]
        assert seen == [("0:clinic-7;", "-"), ("1:clinic-7;", "-")]

    @pytest.mark.django_db  # The end of a response closes connections.
    def test_a_file_is_read_under_it_and_closed_once_when_it_breaks(self, middleware: Any) -> None:
        file: Any = Failing()
        response = middleware(FileResponse(file))
        with pytest.raises(OSError, match="it broke"):
            list(response.streaming_content)
        assert (file.seen, active()) == (["clinic-7"] * 2, "-")
        response.close()
        assert file.closed == 1

    def test_a_file_comes_whole_and_with_its_headers(self, middleware: Any) -> None:
        response = middleware(FileResponse(BytesIO(b"x" * 10_000), filename="scan.pdf"))
        assert b"".join(response.streaming_content) == b"x" * 10_000
        assert (response["Content-Length"], response["Content-Type"]) == ("10000", "application/pdf")

    def test_a_response_without_a_guard_is_left_as_it_is(self, settings: Settings) -> None:
        with_function(settings, BOTH[0])
        response = FileResponse(BytesIO(b"x"))
        assert PartitionGuardMiddleware(lambda request: response)(RequestFactory().get("/")) is response
        assert response.file_to_stream is not None


class TestFunction:
    @pytest.mark.parametrize(("name", "seen"), [("one", "clinic-7"), ("none", ""), ("set", "clinic-7,default")])
    def test_may_return_one_partition_or_several_or_none_at_all(
        self, settings: Settings, get: Any, name: str, seen: str
    ) -> None:
        with_function(settings, "tests.test_middleware.wrong")
        assert get(f"/look?wrong={name}") == (200, seen)

    @pytest.mark.parametrize("name", ["int", "bool", "bytes", "list"])
    def test_that_returns_something_else_is_an_error_and_no_view_is_called(
        self, settings: Settings, get: Any, name: str
    ) -> None:
        with_function(settings, "tests.test_middleware.wrong")
        with pytest.raises(
            ImproperlyConfigured,
            match=rf"^ASHERAH\['PARTITION_GUARD'\], tests\.test_middleware\.wrong, returned a {name} ",
        ):
            get(f"/look?wrong={name}")

    @pytest.mark.parametrize("path", ["", "tests.nowhere.clinic_of", "tests.settings.ASHERAH"])
    def test_that_is_missing_stops_the_server_from_starting(self, settings: Settings, path: str) -> None:
        with_function(settings, path)
        with pytest.raises(ImproperlyConfigured, match=r"^ASHERAH\['PARTITION_GUARD'\] is "):
            PartitionGuardMiddleware(lambda request: HttpResponse())

    def test_may_look_up_the_user_when_authentication_comes_before(self, settings: Settings) -> None:
        with_function(settings, "tests.test_middleware.clinic_of_user")
        request: Any = RequestFactory().get("/")
        request.user = SimpleNamespace(clinic_id=7)
        assert PartitionGuardMiddleware(look)(request).content == b"clinic-7,default"  # type: ignore[union-attr]


def clinic_of_user(request: Any) -> tuple[str, ...]:
    return f"clinic-{request.user.clinic_id}", "default"


def test_it_is_async_exactly_where_what_it_wraps_is(settings: Settings) -> None:
    with_function(settings, BOTH[0])
    assert iscoroutinefunction(PartitionGuardMiddleware(look_async))
    assert not iscoroutinefunction(PartitionGuardMiddleware(look))
