"""Encrypted fields in the admin, and the mixin for rows that can't be read."""

from __future__ import annotations

import copy
import pickle
import re
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import display_for_field
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils.html import conditional_escape

from django_asherah.exceptions import DecryptionError, EncryptionError, InvalidRecordError
from django_asherah.fields.unreadable import TolerantIterable, Unreadable
from tests.admin.site import site
from tests.fields.helpers import opened, raw, set_raw
from tests.fields.test_types import NAMES, other
from tests.testapp.models import Document, Note, Typed, Visit

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.admin.site")]

LIST = "/mixed/testapp/note/"
MARK = "⚠ could not be decrypted"


@pytest.fixture
def notes() -> list[Note]:
    """Three notes; the body of the second is damaged."""
    notes = [Note.objects.create(title=f"t{n}", body=f"body {n}", other_body=f"other {n}") for n in range(3)]
    set_raw(notes[1], "body", raw(notes[1], "body")[:-9] + '"}')
    return notes


def page_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


class TestWithoutMixin:
    def test_normal_widgets_and_validation_and_no_ciphertext(self, admin_client: Client) -> None:
        document = Document.objects.create(name="n", doc={"a": 1})
        url = f"/mixed/testapp/document/{document.pk}/change/"
        page = page_of(admin_client, url)
        assert '<textarea name="doc"' in page
        assert "{&quot;a&quot;: 1}" in page
        assert "_IK_default" not in page + page_of(admin_client, "/mixed/testapp/document/")
        refused = admin_client.post(url, {"name": "n", "doc": "{", "encoded": "[1]"}).content.decode()
        assert "Enter a valid JSON." in refused
        assert admin_client.post(url, {"name": "n", "doc": "[2]", "encoded": "[1]"}).status_code == 302
        assert opened(document, "doc") == b"[2]"

    def test_the_list_opens_no_column_that_it_does_not_show(self, admin_client: Client) -> None:
        set_raw(Document.objects.create(name="shown", doc=1), "encoded", "damaged")
        assert "shown" in page_of(admin_client, "/mixed/testapp/document/")

    def test_one_row_takes_the_list_down(self, admin_client: Client) -> None:
        set_raw(Document.objects.create(doc=1), "doc", "damaged")
        with pytest.raises(InvalidRecordError):
            admin_client.get("/mixed/testapp/document/")


class TestEveryType:
    """As the plain field: a value, its widget, and a mark in its place where it can't be read."""

    TYPED = "/mixed/testapp/typed/"

    @pytest.fixture
    def typed(self, name: str) -> Typed:
        """A row whose value can't be read."""
        row = Typed.objects.create(**{name: other(name)})
        set_raw(row, name, "damaged")
        return row

    @pytest.fixture
    def typed_admin(self) -> Any:
        return site._registry[Typed]

    @pytest.mark.parametrize("name", NAMES)
    def test_the_widget_is_the_plain_fields(self, typed_admin: Any, name: str) -> None:
        field = Typed._meta.get_field(name)
        plain_class = next(base for base in type(field).__mro__ if base.__module__.startswith("django.db"))
        plain = plain_class(**{"decimal": {"max_digits": 10, "decimal_places": 2}}.get(name, {}))
        plain.set_attributes_from_name(name)
        ours, theirs = (typed_admin.formfield_for_dbfield(each, request=None) for each in (field, plain))
        assert type(ours) is type(theirs)
        assert ours is None or type(ours.widget) is type(theirs.widget)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("mixin", [True, False])
    def test_the_list_shows_it_as_the_plain_field(
        self, admin_client: Client, typed_admin: Any, monkeypatch: pytest.MonkeyPatch, name: str, mixin: bool
    ) -> None:
        row = Typed.objects.create(**{name: other(name)})
        if not mixin:
            monkeypatch.setattr(typed_admin, "get_list_display", lambda request: typed_admin.list_display)
        page = page_of(admin_client, self.TYPED)
        row.refresh_from_db()
        shown = display_for_field(getattr(row, name), Typed._meta.get_field(name), "-")
        assert conditional_escape(shown) in page
        assert "_IK_default" not in page

    @pytest.mark.parametrize("name", NAMES)
    def test_the_list_marks_it(self, admin_client: Client, typed: Typed, name: str) -> None:
        assert page_of(admin_client, self.TYPED).count(MARK) == 1

    @pytest.mark.parametrize("name", NAMES)
    def test_the_list_marks_it_in_a_column_of_links(
        self, admin_client: Client, typed: Typed, typed_admin: Any, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(typed_admin, "list_display_links", (name,))
        page = page_of(admin_client, self.TYPED)
        assert re.search(rf'<a href="{self.TYPED}{typed.pk}/change/[^>]*>{MARK}</a>', page)

    @pytest.mark.parametrize("name", [name for name in NAMES if name != "binary"])
    def test_the_list_marks_it_in_a_column_that_can_be_edited(
        self, admin_client: Client, typed: Typed, typed_admin: Any, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(typed_admin, "list_editable", (name,))
        assert MARK in page_of(admin_client, self.TYPED)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_page_marks_it(self, admin_client: Client, typed: Typed, name: str) -> None:
        assert (f">{MARK}<" in page_of(admin_client, f"{self.TYPED}{typed.pk}/change/")) is (name != "binary")

    @pytest.mark.parametrize("name", NAMES)
    def test_the_page_marks_it_where_it_can_only_be_read(
        self, admin_client: Client, typed: Typed, typed_admin: Any, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(typed_admin, "readonly_fields", (name,))
        assert f">{MARK}<" in page_of(admin_client, f"{self.TYPED}{typed.pk}/change/")

    @pytest.mark.parametrize("name", NAMES)
    def test_the_page_marks_it_for_one_who_may_only_look(
        self, admin_client: Client, typed: Typed, typed_admin: Any, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(typed_admin, "has_change_permission", lambda request, obj=None: False)
        assert (f">{MARK}<" in page_of(admin_client, f"{self.TYPED}{typed.pk}/change/")) is (name != "binary")

    @pytest.mark.parametrize("name", [*NAMES, *(f"{name}_or_none" for name in NAMES)])
    def test_a_save_changes_nothing_whatever_cleaning_says(self, name: str) -> None:
        typed = Typed.objects.create()
        set_raw(typed, name, "damaged")
        queryset: Any = Typed.objects.all()
        queryset._iterable_class = TolerantIterable
        row = queryset.get()
        with suppress(ValueError, ValidationError):
            row.full_clean()
        row.save()
        assert raw(typed, name) == "damaged"


class TestList:
    def test_a_row_whose_str_can_not_be_read(
        self, admin_client: Client, notes: list[Note], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Note, "__str__", lambda note: note.body)
        monkeypatch.setattr(site._registry[Note], "list_display", ("__str__",))
        monkeypatch.setattr(site._registry[Note], "list_editable", ())
        page = page_of(admin_client, LIST)
        assert "body 0" in page
        assert f'/change/">{MARK}</a>' in page
        assert MARK in page_of(admin_client, f"{LIST}{notes[1].pk}/change/")
        assert MARK in page_of(admin_client, f"{LIST}{notes[1].pk}/delete/")

    def test_the_row_is_marked_and_the_others_are_shown(self, admin_client: Client, notes: list[Note]) -> None:
        page = page_of(admin_client, LIST)
        assert page.count(MARK) == 1
        assert "body 0" in page
        assert "body 2" in page
        assert "_IK_default" not in page

    def test_an_encrypted_column_offers_no_sorting(self, admin_client: Client, notes: list[Note]) -> None:
        assert "body 0" in page_of(admin_client, LIST + "?o=3")

    def test_editing_the_list_leaves_the_record_as_it_is(self, admin_client: Client, notes: list[Note]) -> None:
        before = [raw(note, "body") for note in notes]
        form: dict[str, Any] = {"form-TOTAL_FORMS": 3, "form-INITIAL_FORMS": 3, "_save": "Save"}
        for place, note in enumerate(reversed(notes)):
            form |= {f"form-{place}-id": note.pk, f"form-{place}-title": "new", f"form-{place}-other_body": "edited"}
        assert admin_client.post(LIST, form).status_code == 302
        assert raw(notes[1], "body") == before[1]
        assert [opened(note, "other_body") for note in notes] == [b"edited"] * 3
        assert set(Note.objects.values_list("title", flat=True)) == {"new"}

    def test_an_unreadable_value_in_an_editable_column_can_not_be_edited(
        self, admin_client: Client, notes: list[Note]
    ) -> None:
        damaged = raw(notes[0], "other_body")[:-9]
        set_raw(notes[0], "other_body", damaged)
        assert page_of(admin_client, LIST).count(MARK) == 2
        form: dict[str, Any] = {"form-TOTAL_FORMS": 3, "form-INITIAL_FORMS": 3, "_save": "Save"}
        for place, note in enumerate(reversed(notes)):
            form |= {f"form-{place}-id": note.pk, f"form-{place}-title": "new", f"form-{place}-other_body": "forced"}
        assert admin_client.post(LIST, form).status_code == 302
        assert raw(notes[0], "other_body") == damaged

    def test_an_action_that_saves_leaves_the_record_as_it_is(self, admin_client: Client, notes: list[Note]) -> None:
        before = raw(notes[1], "body")
        admin_client.post(LIST, {"action": "resave", "_selected_action": [note.pk for note in notes]})
        assert raw(notes[1], "body") == before
        assert set(Note.objects.values_list("title", flat=True)) == {"by an action"}

    def test_deleting_works(self, admin_client: Client, notes: list[Note]) -> None:
        chosen = {"action": "delete_selected", "_selected_action": [notes[1].pk]}
        assert admin_client.post(LIST, chosen).status_code == 200
        admin_client.post(LIST, {**chosen, "post": "yes"})
        assert Note.objects.count() == 2


def test_the_admins_log_keeps_what_str_returns(
    admin_client: Client, notes: list[Note], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limitation that the documentation names."""
    monkeypatch.setattr(Note, "__str__", lambda note: note.body)
    form = {"title": "t", "body": "secret", "other_body": "", "visits-TOTAL_FORMS": 0, "visits-INITIAL_FORMS": 0}
    response = admin_client.post(f"{LIST}{notes[0].pk}/change/", form, follow=True)
    assert LogEntry.objects.get().object_repr == "secret"
    assert "secret" in str(*response.context["messages"])


class TestChangePage:
    def test_the_other_fields_can_be_edited(self, admin_client: Client, notes: list[Note]) -> None:
        visit = Visit.objects.create(note=notes[1], remark="r")
        damaged = raw(visit, "remark")[:-9]
        set_raw(visit, "remark", damaged)
        url, before = f"{LIST}{notes[1].pk}/change/", raw(notes[1], "body")
        assert page_of(admin_client, url).count(MARK) == 2
        form = {
            "title": "edited",
            "body": "forced",
            "other_body": "edited",
            "visits-TOTAL_FORMS": 1,
            "visits-INITIAL_FORMS": 1,
            "visits-0-id": visit.pk,
            "visits-0-note": notes[1].pk,
            "visits-0-remark": "forced",
        }
        response = admin_client.post(url, form)
        assert response.status_code == 302, response.context["errors"]
        assert (raw(notes[1], "body"), raw(visit, "remark")) == (before, damaged)
        assert opened(notes[1], "other_body") == b"edited"

    def test_a_readable_row_is_edited_as_ever(self, admin_client: Client, notes: list[Note]) -> None:
        form = {"title": "t", "body": "new", "other_body": "", "visits-TOTAL_FORMS": 0, "visits-INITIAL_FORMS": 0}
        assert admin_client.post(f"{LIST}{notes[0].pk}/change/", form).status_code == 302
        assert opened(notes[0], "body") == b"new"


class TestUnreadable:
    def tolerant(self, note: Note) -> Any:
        queryset: Any = Note.objects.all()
        queryset._iterable_class = TolerantIterable
        return queryset.get(pk=note.pk)

    def test_a_save_writes_the_record_back(self, notes: list[Note]) -> None:
        note, before = self.tolerant(notes[1]), raw(notes[1], "body")
        assert isinstance(note.body, Unreadable)
        note.save()
        assert raw(notes[1], "body") == before

    def test_a_full_clean_before_the_save_changes_nothing(self, notes: list[Note]) -> None:
        note, before = self.tolerant(notes[1]), raw(notes[1], "body")
        note.full_clean(exclude=["title"])
        note.save()
        assert raw(notes[1], "body") == before

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda note: pickle.loads(pickle.dumps(note))])
    def test_a_duplicate_of_the_instance_is_as_good(self, notes: list[Note], duplicate: Any) -> None:
        note, before = duplicate(self.tolerant(notes[1])), raw(notes[1], "body")
        assert type(note.body) is Unreadable
        note.save()
        assert raw(notes[1], "body") == before

    def test_it_goes_nowhere_else(self, notes: list[Note]) -> None:
        note = self.tolerant(notes[1])
        with pytest.raises(EncryptionError, match="could not be opened, so it is not written anywhere else"):
            Note.objects.create(body=note.body)
        with pytest.raises(EncryptionError):
            Note.objects.update(body=note.body)
        note.other_body = note.body
        with pytest.raises(EncryptionError):
            note.save()

    def test_everywhere_else_it_is_still_an_error(self, notes: list[Note]) -> None:
        self.tolerant(notes[1])
        note = Note.objects.get(pk=notes[1].pk)
        with pytest.raises(DecryptionError):
            note.body
