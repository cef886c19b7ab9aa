"""Forms and the admin with encrypted files, with a base_url and without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from django_asherah.checks.files import check_files
from tests.files.rows import AttachmentAdmin, row_with, stored_in, user_with
from tests.testapp.models import Attachment

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.files.rows")]
LIST = "/site/testapp/attachment/"


class AttachmentForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Attachment
        fields = ("file",)


def upload(data: bytes = b"secret", name: str = "scan.pdf") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, data)


@pytest.fixture
def with_url() -> Iterator[Any]:
    with stored_in(base_url="/files/") as inner:
        yield inner


@pytest.fixture
def without_url() -> Iterator[Any]:
    with stored_in() as inner:
        yield inner


@pytest.fixture
def staff(db: None) -> Client:
    client = Client()
    client.force_login(user_with("view", "add", "change", "delete", is_staff=True))
    return client


@pytest.mark.usefixtures("with_url")
class TestAdmin:
    def test_create_list_change_clear_and_delete(self, staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Attachment._meta.get_field("file"), "blank", True)
        made = staff.post(f"{LIST}add/", {"file": upload(), "_continue": "1"}, follow=True)
        row = Attachment.objects.get()
        assert 'href="/files/scan.pdf"' in made.content.decode()
        assert b"".join(staff.get(row.file.url).streaming_content) == b"secret"  # type: ignore[arg-type]
        assert 'href="/files/scan.pdf"' in staff.get(LIST).content.decode()

        page = f"{LIST}{row.pk}/change/"
        staff.post(page, {})
        row.refresh_from_db()
        assert row.file.name == "scan.pdf"
        staff.post(page, {"file": upload(b"other", "other.pdf")})
        row.refresh_from_db()
        assert (row.file.name, row.file.read()) == ("other.pdf", b"other")
        staff.post(page, {"file-clear": "on"})
        row.refresh_from_db()
        assert row.file.name == ""
        assert staff.get(page).status_code == 200
        staff.post(f"{LIST}{row.pk}/delete/", {"post": "yes"})
        assert not Attachment.objects.exists()

    def test_a_page_to_view_has_the_link(self) -> None:
        row = row_with(b"x")
        client = Client()
        client.force_login(user_with("view", is_staff=True))
        assert 'href="/files/scan.pdf"' in client.get(f"{LIST}{row.pk}/change/").content.decode()


@pytest.mark.usefixtures("with_url")
class TestModelForm:
    def test_shows_the_link_again(self) -> None:
        form = AttachmentForm({}, {"file": upload()})
        row = form.save()
        assert 'href="/files/scan.pdf"' in str(AttachmentForm(instance=row))
        kept = AttachmentForm({}, {}, instance=row)
        assert kept.save().file.name == "scan.pdf"


class TestWithoutABaseUrl:
    def test_a_form_stores_the_file_and_shows_no_link(self, without_url: Any) -> None:
        row = AttachmentForm({}, {"file": upload()}).save()
        page = str(AttachmentForm(instance=row))
        assert 'type="file"' in page
        assert "href" not in page
        assert AttachmentForm({}, {}, instance=row).save().file.read() == b"secret"

    def test_the_admins_form_does_so_too(self, without_url: Any, staff: Client) -> None:
        made = staff.post(f"{LIST}add/", {"file": upload(), "_continue": "1"}, follow=True)
        assert made.status_code == 200
        assert "/files/" not in made.content.decode()

    def test_url_is_an_error_and_no_attribute(self, without_url: Any) -> None:
        row = row_with(b"x")
        assert not hasattr(row.file, "url")
        with pytest.raises(NotImplementedError, match="give EncryptedStorage the base_url of a view that serves it"):
            _ = row.file.url


class TestCheck:
    def messages(self) -> list[Any]:
        return [message for message in check_files(None) if message.obj is AttachmentAdmin]

    def test_refuses_a_model_admin_that_shows_files_without_a_url(self, without_url: Any) -> None:
        (message,) = self.messages()
        assert (message.id, message.is_serious()) == ("asherah.E130", True)
        assert message.msg == (
            "It shows testapp.Attachment.file, whose storage has no base_url: lists and pages to view would fail, and "
            "forms have no link to the file."
        )

    def test_is_content_with_a_base_url(self, with_url: Any) -> None:
        assert self.messages() == []

    @pytest.mark.parametrize(
        ("options", "shown"),
        [
            ({}, True),
            ({"exclude": ["file"]}, False),
            ({"fields": ["id"]}, False),
            ({"fields": [("id", "file")]}, True),
            ({"fieldsets": [(None, {"fields": ["file"]})]}, True),
            ({"fieldsets": [(None, {"fields": ["id"]})]}, False),
            ({"exclude": ["file"], "readonly_fields": ["file"]}, True),
            ({"exclude": ["file"], "list_display": ["file"]}, True),
            ({"form": AttachmentForm}, True),
            ({"form": type("Without", (forms.ModelForm,), {"Meta": type("Meta", (), {"exclude": ["file"]})})}, False),
            ({"form": type("Of", (forms.ModelForm,), {"Meta": type("Meta", (), {"fields": ["id"]})})}, False),
        ],
    )
    def test_looks_at_what_is_shown(self, without_url: Any, options: dict[str, Any], shown: bool) -> None:
        own = admin.AdminSite("own")
        made = type("Made", (admin.ModelAdmin,), options)
        own.register(Attachment, made)
        assert [message.obj for message in check_files(None) if message.obj is made] == [made] * shown

    @pytest.mark.parametrize(("options", "shown"), [({}, False), ({"readonly_fields": ["file"]}, True)])
    def test_leaves_out_what_no_form_has(
        self, without_url: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], shown: bool
    ) -> None:
        monkeypatch.setattr(Attachment._meta.get_field("file"), "editable", False)
        self.test_looks_at_what_is_shown(without_url, options, shown)

    def test_looks_at_inlines(self, without_url: Any) -> None:
        class Inline(admin.TabularInline):  # type: ignore[type-arg]
            model = Attachment

        own = admin.AdminSite("own")
        from tests.testapp.models import Note

        own.register(Note, type("WithInline", (admin.ModelAdmin,), {"inlines": [Inline]}))
        assert [message.id for message in check_files(None) if message.obj is Inline] == ["asherah.E130"]
