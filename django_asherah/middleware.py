"""A middleware that puts each request under the guard of its own partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, cast

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from django_asherah.conf import get_settings
from django_asherah.guard import partition_guard

_END = object()


class PartitionGuardMiddleware:
    """Runs the view, and what a streaming response yields, under a guard of the request's partitions.

    The function that ``ASHERAH["PARTITION_GUARD"]`` names says which ones these are. It takes the request, may be
    ``async``, and returns a partition, several, or None for no guard. What it raises is the request's own failure: no
    view is called. If it uses ``request.user``, this must come after ``AuthenticationMiddleware``.

    Raises:
        ImproperlyConfigured: there is no such function, or, for a request, it returned something else.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._path = get_settings().partition_guard
        self._function = find_function(self._path)
        self._awaits_function = iscoroutinefunction(self._function)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Return the response, or in an async stack what to await."""
        if self._is_async:
            return self._respond_async(request)
        returned = async_to_sync(self._function)(request) if self._awaits_function else self._function(request)
        partitions = self._partitions(returned)
        with _guard(partitions):
            response: HttpResponseBase = self._get_response(request)
        return _with_guarded_stream(response, partitions)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        if self._awaits_function:
            partitions = self._partitions(await self._function(request))
        else:  # In the thread of the database, since it may look up the user.
            partitions = await sync_to_async(lambda: self._partitions(self._function(request)))()
        with _guard(partitions):
            response: HttpResponseBase = await self._get_response(request)
        return _with_guarded_stream(response, partitions)

    def _partitions(self, returned: Any) -> tuple[str, ...] | None:
        if returned is None:
            return None
        try:
            partitions = (returned,) if isinstance(returned, str) else tuple(returned)
            partition_guard(*partitions)
        except TypeError as exc:
            raise ImproperlyConfigured(
                f"ASHERAH['PARTITION_GUARD'], {self._path}, returned a {type(returned).__name__} ({exc}): "
                "it must return a partition, several of them, or None"
            ) from None
        return partitions


def find_function(path: str) -> Callable[[HttpRequest], Any]:
    """Return the function at the dotted path that ``ASHERAH["PARTITION_GUARD"]`` holds.

    Raises:
        ImproperlyConfigured: there is none.
    """
    if not path:
        raise ImproperlyConfigured("ASHERAH['PARTITION_GUARD'] is not set, and PartitionGuardMiddleware needs it.")
    try:
        found = import_string(path)
    except ImportError as exc:
        raise ImproperlyConfigured(f"ASHERAH['PARTITION_GUARD'] is {path!r}, which can't be imported: {exc}.") from exc
    if not callable(found):
        raise ImproperlyConfigured(
            f"ASHERAH['PARTITION_GUARD'] is {path!r}, which is no function, but a {type(found).__name__}."
        )
    return cast("Callable[[HttpRequest], Any]", found)


def _guard(partitions: tuple[str, ...] | None) -> partition_guard | nullcontext[None]:
    return nullcontext() if partitions is None else partition_guard(*partitions)


def _with_guarded_stream(response: HttpResponseBase, partitions: tuple[str, ...] | None) -> HttpResponseBase:
    """Put what a streaming response yields, later and elsewhere, under the same guard."""
    if partitions is not None and isinstance(response, StreamingHttpResponse):
        parts: Any = response.streaming_content
        response.streaming_content = (
            _guarded_async(parts, partitions) if response.is_async else _guarded(parts, partitions)
        )
    return response


def _guarded(parts: Iterable[bytes], partitions: tuple[str, ...]) -> Iterator[bytes]:
    iterator = iter(parts)
    while True:
        with partition_guard(*partitions):
            part: Any = next(iterator, _END)
        if part is _END:
            return
        yield part


async def _guarded_async(parts: AsyncIterator[bytes], partitions: tuple[str, ...]) -> AsyncIterator[bytes]:
    iterator = aiter(parts)
    while True:
        with partition_guard(*partitions):
            part: Any = await anext(iterator, _END)
        if part is _END:
            return
        yield part
