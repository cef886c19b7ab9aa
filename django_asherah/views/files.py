"""A view that serves encrypted files, decrypted, to those who may view their rows."""

from __future__ import annotations

import io
import mimetypes
from pathlib import PurePosixPath
from typing import Any

from django.contrib.auth import get_permission_codename
from django.contrib.auth.mixins import AccessMixin
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured, ValidationError
from django.core.handlers.asgi import ASGIRequest
from django.db.models import FileField, Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.decorators import classonlymethod
from django.utils.http import content_disposition_header, quote_etag
from django.views import View

from django_asherah.storage import EncryptedStorage
from django_asherah.views.bodies import AsyncBody, Body
from django_asherah.views.byteranges import UnsatisfiableRangeError, find_range

_RUN = ("html", "xml", "script", "css", "wasm")
"""Ends of the types that a browser may run or style a page with, were it lured into doing so."""

_SHOWN = ("image/", "audio/", "video/", "application/pdf", "text/plain")
"""Beginnings of the types that a browser shows, and runs nothing of."""


class EncryptedFileView(AccessMixin, View):
    """Serves the files of a model's field, decrypted while they are sent, in bounded memory.

    Its URL has ``name``, the file's (``<path:name>``), ``pk``, the row's, or both. Anonymous users are sent to the
    login; who may not view the row gets a 403, and a row or a file that is missing is a 404. ``Range`` is supported.

    What is sent is authenticated: a file that is found damaged after the first bytes ends in a broken connection, and
    one whose beginning or end is damaged is an error before that.

    Attributes:
        model: the rows.
        field: the name of their ``FileField`` over an ``EncryptedStorage``.
        as_attachment: whether browsers save all files. If False, they show images, audio, video, PDF and plain text.

    Raises:
        ImproperlyConfigured: raised by ``as_view()``; there is no such field.
    """

    http_method_names = ["get", "head", "options"]  # noqa: RUF012 - as Django's View has it

    model: type[Model] | None = None
    field = "file"
    as_attachment = True

    @classonlymethod
    def as_view(cls, **initkwargs: Any) -> Any:  # noqa: N805 - as Django has it
        """Return the view, for ``path()``; ``model``, ``field`` and ``as_attachment`` can be given here."""
        view = super().as_view(**initkwargs)
        cls._require_field(initkwargs.get("model", cls.model), initkwargs.get("field", cls.field))
        return view

    def get_queryset(self) -> QuerySet[Any]:
        """Return the rows whose files can be had here: all of the model, unless you override it."""
        assert self.model is not None  # noqa: S101 - as_view() has seen to it
        return self.model._default_manager.all()

    def has_permission(self, row: Model | None) -> bool:
        """Tell whether this user may have the row's file.

        By default, whoever may view or change the model, or this row, as in the admin.

        Args:
            row: None if there is none: who then may not learn that gets the same answer as for a row of others.
        """
        assert self.model is not None  # noqa: S101 - as_view() has seen to it
        user, options = self.request.user, self.model._meta
        names = [f"{options.app_label}.{get_permission_codename(action, options)}" for action in ("view", "change")]
        return any(user.has_perm(name) or (row is not None and user.has_perm(name, row)) for name in names)

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        """Send the file. It is used for ``HEAD``, too."""
        rows = self._find_rows()
        row = next((row for row in rows if self.has_permission(row)), None)
        if row is None:
            if rows or not self.has_permission(None):
                return self.handle_no_permission()
            raise Http404("no row has this file")
        file = getattr(row, self.field)
        try:
            opened = file.storage.open(file.name)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Http404("the file is missing") from None
        try:
            response = self._respond(opened, PurePosixPath(file.name).name)
        except BaseException:
            opened.close()
            raise
        if not response.streaming:
            opened.close()
        return response

    def _find_rows(self) -> list[Any]:
        """Return the rows of the URL; several may have the same file."""
        name = self.kwargs.get("name")
        try:
            lookup = self._lookup(name)
        except ValidationError:  # No primary key of this type.
            return []
        if any("\0" in value for value in lookup.values() if isinstance(value, str)):  # PostgreSQL has no such text.
            return []
        rows = self.get_queryset().filter(**lookup)
        files = [(row, getattr(row, self.field)) for row in rows]
        # A database may ignore case.
        return [row for row, file in files if file and name in (None, file.name)]

    def _lookup(self, name: Any) -> dict[str, Any]:
        """Return what the URL says of the row: all of it counts."""
        assert self.model is not None  # noqa: S101 - as_view() has seen to it
        lookup = {} if name is None else {self.field: name}
        if name is None or "pk" in self.kwargs:
            lookup["pk"] = self.model._meta.pk.to_python(self.kwargs["pk"])
        return lookup

    def _respond(self, opened: Any, name: str) -> HttpResponseBase:
        etag = quote_etag(opened.file.raw.identity)
        length = opened.seek(0, io.SEEK_END)  # Opens the last chunk, and so proves it.
        response = self._answer_condition(etag) or self._send(opened, length, self._wanted(etag), name)
        response.headers["ETag"] = etag
        response.headers["Accept-Ranges"] = "bytes"
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _answer_condition(self, etag: str) -> HttpResponseBase | None:
        # Without one of these, Django would refuse an If-Unmodified-Since, as there is no Last-Modified.
        if not {"If-Match", "If-None-Match"} & self.request.headers.keys():
            return None
        return get_conditional_response(self.request, etag=etag)

    def _wanted(self, etag: str) -> str:
        """Return the header ``Range``, if it is to be regarded."""
        headers = self.request.headers
        is_regarded = self.request.method == "GET" and headers.get("If-Range", etag) == etag
        return headers.get("Range", "") if is_regarded else ""

    def _send(self, opened: Any, length: int, wanted: str, name: str) -> HttpResponseBase:
        try:
            part = find_range(wanted, length)
        except UnsatisfiableRangeError:
            return HttpResponse(status=416, headers={"Content-Range": f"bytes */{length}"})
        start, stop = part or (0, length)
        response: HttpResponseBase
        if self.request.method == "HEAD":
            response = HttpResponse()
        else:
            opened.seek(start)
            body = Body(opened, stop - start)
            response = StreamingHttpResponse(AsyncBody(body) if isinstance(self.request, ASGIRequest) else body)
        if part:
            response.status_code = 206
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
        kind = _type_of(name)
        is_shown = not self.as_attachment and kind.startswith(_SHOWN)
        response.headers["Content-Type"] = kind
        response.headers["Content-Disposition"] = content_disposition_header(not is_shown, name) or "inline"
        response.headers["Content-Length"] = str(stop - start)
        # GZipMiddleware would compress what has none, a range, too.
        response.headers["Content-Encoding"] = "identity"
        return response

    @classmethod
    def _require_field(cls, model: Any, name: str) -> None:
        try:
            field = model._meta.get_field(name)
        except (AttributeError, FieldDoesNotExist):
            field = None
        if not isinstance(field, FileField) or not isinstance(field.storage, EncryptedStorage):
            of = f"{model._meta.label}.{name}" if model else repr(name)
            raise ImproperlyConfigured(
                f"{cls.__name__} serves {of}, which is no FileField over an EncryptedStorage: give it model and field"
            )


def _type_of(name: str) -> str:
    """Return the type of content that a name stands for, unless a browser could run it."""
    kind, encoding = mimetypes.guess_type(name)
    if kind is None or encoding or kind.endswith(_RUN):
        return "application/octet-stream"
    return kind
