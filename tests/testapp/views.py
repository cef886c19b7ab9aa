"""Views that write encrypted values, with and without a failure afterwards."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from tests.testapp.models import Note


def create_note(request: HttpRequest) -> HttpResponse:
    """Save a note and answer with its primary key."""
    note = Note.objects.create(body=request.POST["body"])
    return HttpResponse(str(note.pk))


def create_note_and_fail(request: HttpRequest) -> HttpResponse:
    """Save a note, then fail, so that ``ATOMIC_REQUESTS`` rolls it back."""
    Note.objects.create(body=request.POST["body"])
    raise RuntimeError("the view fails after its write")
