"""EncryptedFileView: who may have a file, what comes of it, and how."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from django.core.signals import request_finished
from django.db import close_old_connections
from django.test import AsyncClient, Client

from django_asherah.envelope.files import CHUNK_LENGTH
from django_asherah.exceptions import DecryptionError, PartitionMismatchError
from django_asherah.guard import partition_guard
from django_asherah.storage import EncryptedStorage
from django_asherah.views import EncryptedFileView
from django_asherah.views.byteranges import UnsatisfiableRangeError, find_range
from tests.files.rows import FIELD, row_with, stored_in, user_with
from tests.memory import peak_of
from tests.testapp.models import Attachment, Note

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.files.rows")]

LONG = b"".join(n.to_bytes(4) for n in range(CHUNK_LENGTH))  # Four chunks.


def clinic_of(name: str) -> str:
    return name.partition("/")[0]


@pytest.fixture(autouse=True)
def inner() -> Iterator[InMemoryStorage]:
    with stored_in(base_url="/files/") as storage:
        yield storage


@pytest.fixture
def client(db: None) -> Client:
    found = Client()
    found.force_login(user_with("view"))
    return found


def body(response: Any) -> bytes:
    try:
        return b"".join(response.streaming_content)
    finally:
        close(response)


def close(response: Any) -> None:
    """Close it as Django's test client does: the end of a request would end the test's connection, too."""
    request_finished.disconnect(close_old_connections)
    response.close()
    request_finished.connect(close_old_connections)


def damage(inner: InMemoryStorage, name: str, at: int) -> None:
    with inner.open(name) as file:
        data = bytearray(file.read())
    data[at] ^= 1
    inner.delete(name)
    inner.save(name, ContentFile(bytes(data)))


class TestPermission:
    @pytest.mark.parametrize("action", ["view", "change"])
    def test_whoever_may_view_or_change_the_model_gets_the_file(self, client: Client, action: str) -> None:
        row = row_with(LONG)
        client.force_login(user_with(action))
        for url in (row.file.url, f"/rows/{row.pk}", f"/texts/{row.pk}"):
            response = client.get(url)
            assert (response.status_code, body(response)) == (200, LONG)

    def test_others_are_refused_and_learn_nothing_of_what_there_is(self, client: Client) -> None:
        row_with(b"secret")
        for user in (user_with(), user_with("add", "delete"), user_with("view", is_active=False)):
            client.force_login(user)
            answers = {client.get(url).status_code for url in ("/files/scan.pdf", "/files/missing", "/rows/99999")}
            assert answers == ({403} if user.is_active else {302})

    def test_anonymous_users_are_sent_to_the_login(self) -> None:
        row = row_with(b"secret")
        for url in ("/files/scan.pdf", "/files/missing"):
            response = Client().get(url)
            assert (response.status_code, response["Location"]) == (302, f"/login/?next={url}")
        assert Client().get(f"/rows/{row.pk}")["Location"].startswith("/accounts/login/?next=")

    def test_a_backend_may_allow_one_row(self, client: Client, settings: Any) -> None:
        rows = [row_with(b"theirs", "1"), row_with(b"ours", "2")]
        settings.AUTHENTICATION_BACKENDS = [f"{__name__}.OneRow"]
        client.force_login(user_with(), backend=f"{__name__}.OneRow")
        OneRow.pk = rows[1].pk
        assert client.get("/files/1").status_code == 403
        assert body(client.get("/files/2")) == b"ours"

    def test_one_of_the_rows_of_a_file_is_enough(self, client: Client, settings: Any) -> None:
        rows = [row_with(b"shared"), Attachment.objects.create(file="scan.pdf")]
        settings.AUTHENTICATION_BACKENDS = [f"{__name__}.OneRow"]
        client.force_login(user_with(), backend=f"{__name__}.OneRow")
        OneRow.pk = rows[1].pk
        assert body(client.get("/files/scan.pdf")) == b"shared"

    def test_only_reading_is_supported(self, client: Client) -> None:
        assert client.post(row_with(b"x").file.url).status_code == 405


class OneRow:
    """As django-guardian does, in short."""

    pk: Any = None

    def has_perm(self, user: Any, name: str, row: Any = None) -> bool:
        return row is not None and row.pk == self.pk and name == "testapp.view_attachment"

    def get_user(self, pk: Any) -> Any:
        from django.contrib.auth.models import User

        return User.objects.get(pk=pk)


class TestMissing:
    @pytest.mark.parametrize(
        "url", ["/files/missing", "/files/a%00b", "/files/", "/rows/99999", "/texts/no-number", "/texts/1%00"]
    )
    def test_rows(self, client: Client, url: str) -> None:
        row_with(b"x")
        Attachment.objects.create(file="")
        assert client.get(url).status_code == 404

    def test_files(self, client: Client) -> None:
        row = row_with(b"x")
        row.file.storage.delete(row.file.name)
        assert client.get(row.file.url).status_code == 404

    def test_a_folder_in_place_of_a_file(self, client: Client) -> None:
        row = row_with(b"x", "folder/scan.pdf")
        Attachment.objects.filter(pk=row.pk).update(file="folder")
        assert client.get("/files/folder").status_code == 404

    def test_a_file_in_place_of_a_folder(self, client: Client, tmp_path: Path) -> None:
        with stored_in(base_url="/files/"):
            FIELD.storage = EncryptedStorage(FileSystemStorage(tmp_path), base_url="/files/")
            row = row_with(b"x", "scan")
            Attachment.objects.filter(pk=row.pk).update(file="scan/1.pdf")
            assert client.get("/files/scan/1.pdf").status_code == 404

    def test_a_key_and_a_name_are_of_one_row(self, client: Client) -> None:
        rows = [row_with(b"first", "1"), row_with(b"second", "2")]
        assert body(client.get(f"/both/{rows[0].pk}/1")) == b"first"
        assert client.get(f"/both/{rows[0].pk}/2").status_code == 404
        assert client.get(f"/both/{rows[1].pk}/1").status_code == 404

    def test_a_queryset_that_fails_is_not_taken_for_missing_rows(self, client: Client) -> None:
        row_with(b"x")
        with pytest.raises(TypeError, match="slice"):
            client.get("/sliced/scan.pdf")

    def test_names_are_compared_letter_by_letter(self, client: Client) -> None:
        row_with(b"x", "scan.pdf")
        assert client.get("/files/SCAN.PDF").status_code == 404

    def test_a_row_without_a_file(self, client: Client) -> None:
        row = Attachment.objects.create(file="")
        assert client.get(f"/rows/{row.pk}").status_code == 404


class TestHeaders:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("a.pdf", "application/pdf"),
            ("a.PNG", "image/png"),
            ("a.txt", "text/plain"),
            ("a.html", "application/octet-stream"),
            ("a.xhtml", "application/octet-stream"),
            ("a.svg", "application/octet-stream"),
            ("a.js", "application/octet-stream"),
            ("a.css", "application/octet-stream"),
            ("a.xml", "application/octet-stream"),
            ("a.txt.gz", "application/octet-stream"),
            ("a", "application/octet-stream"),
            ("a.zip", "application/zip"),
        ],
    )
    def test_the_type_is_the_names_unless_a_browser_runs_it(self, client: Client, name: str, kind: str) -> None:
        row_with(b"x", name)
        response = client.get(f"/files/{name}")
        assert response["Content-Type"] == kind
        assert response["Content-Disposition"] == f'attachment; filename="{name}"'
        shown = client.get(f"/shown/{name}")["Content-Disposition"].partition(";")[0]
        assert shown == ("inline" if kind.startswith(("application/pdf", "image/", "text/plain")) else "attachment")

    def test_of_a_file(self, client: Client) -> None:
        row_with(LONG, 'clinic-7/Zoë "1".pdf')
        response = client.get("/files/clinic-7/Zo%C3%AB%20%221%22.pdf")
        assert response["Content-Disposition"] == "attachment; filename*=utf-8''Zo%C3%AB%20%221%22.pdf"
        assert response["Content-Length"] == str(len(LONG))
        assert response["Cache-Control"] == "private, no-store"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Accept-Ranges"] == "bytes"
        assert "Last-Modified" not in response
        assert body(response) == LONG

    def test_head_has_the_same_and_no_body(self, client: Client) -> None:
        url = row_with(LONG).file.url
        get, head = client.get(url), client.head(url, headers={"Range": "bytes=0-1"})
        assert (head.status_code, head.content) == (200, b"")
        assert {**head.headers} == {**get.headers}

    def test_the_etag_is_the_contents(self, client: Client) -> None:
        row = row_with(b"x")
        first = client.get(row.file.url)["ETag"]
        assert client.get(row.file.url)["ETag"] == first
        row.file.storage.delete(row.file.name)
        row_with(b"x")
        assert client.get(row.file.url)["ETag"] != first

    def test_conditions(self, client: Client) -> None:
        url = row_with(b"secret").file.url
        etag = client.get(url)["ETag"]

        def status(**headers: str) -> int:
            return client.get(
                url, headers={name.replace("_", "-"): value for name, value in headers.items()}
            ).status_code

        date = "Sat, 28 Nov 2026 17:00:00 GMT"
        assert (status(If_None_Match=etag), status(If_None_Match='"x"')) == (304, 200)
        assert (status(If_Match=etag), status(If_Match='"x"')) == (200, 412)
        assert (status(If_Unmodified_Since=date), status(If_Modified_Since=date)) == (200, 200)


class TestRange:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-0", (0, 1)),
            ("bytes=0-", (0, 10)),
            ("bytes=3-5", (3, 6)),
            ("Bytes= 3-99999999999999999999 ", (3, 10)),
            ("bytes=9-", (9, 10)),
            ("bytes=-3", (7, 10)),
            ("bytes=-30", (0, 10)),
            ("bytes=5-3", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-b", None),
            ("bytes=٣-", None),
            ("bytes=1", None),
            ("lines=0-1", None),
            ("", None),
            ("bytes=" + "9" * 5000 + "-", None),
        ],
    )
    def test_is_read_as_rfc_9110_has_it(self, header: str, expected: Any) -> None:
        assert find_range(header, 10) == expected

    @pytest.mark.parametrize(
        ("header", "length"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
    )
    def test_behind_the_end(self, client: Client, header: str, length: int) -> None:
        with pytest.raises(UnsatisfiableRangeError):
            find_range(header, length)
        response = client.get(row_with(bytes(length)).file.url, headers={"Range": header})
        assert (response.status_code, response["Content-Range"]) == (416, f"bytes */{length}")

    @pytest.mark.parametrize(
        ("first", "last"),
        [
            (0, 0),
            (CHUNK_LENGTH - 1, CHUNK_LENGTH),
            (CHUNK_LENGTH, 2 * CHUNK_LENGTH - 1),
            (100, len(LONG) - 1),
            (len(LONG) - 1, len(LONG) - 1),
        ],
    )
    def test_is_sent(self, client: Client, first: int, last: int) -> None:
        response = client.get(row_with(LONG).file.url, headers={"Range": f"bytes={first}-{last}"})
        assert response.status_code == 206
        assert response["Content-Range"] == f"bytes {first}-{last}/{len(LONG)}"
        assert response["Content-Length"] == str(last - first + 1)
        assert body(response) == LONG[first : last + 1]

    def test_if_range_decides(self, client: Client) -> None:
        url = row_with(LONG).file.url
        etag = client.get(url)["ETag"]
        for condition, status in (
            (etag, 206),
            ('"x"', 200),
            (f"W/{etag}", 200),
            ("Sat, 28 Nov 2026 17:00:00 GMT", 200),
        ):
            response = client.get(url, headers={"Range": "bytes=1-2", "If-Range": condition})
            assert response.status_code == status

    def test_compression_leaves_it_alone(self, client: Client, settings: Any) -> None:
        settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
        headers = {"Range": "bytes=0-999", "Accept-Encoding": "gzip"}
        response = client.get(row_with(LONG).file.url, headers=headers)
        assert (response["Content-Length"], body(response)) == ("1000", LONG[:1000])


class TestDamage:
    def test_at_the_beginning_or_the_end_is_an_error_before_anything_is_sent(
        self, client: Client, inner: InMemoryStorage
    ) -> None:
        for at in (20, -1):
            row = row_with(LONG, f"{at}")
            damage(inner, row.file.name, at)
            with pytest.raises(DecryptionError, match=f"^file '{at}': "):
                client.get(row.file.url)

    def test_in_the_middle_breaks_off_what_is_sent(self, client: Client, inner: InMemoryStorage) -> None:
        row = row_with(LONG)
        damage(inner, row.file.name, 2 * CHUNK_LENGTH)
        response = client.get(row.file.url)
        sent = []
        with pytest.raises(DecryptionError, match=r"^file 'scan\.pdf': "):
            sent.extend(response.streaming_content)
        close(response)
        assert b"".join(sent) == LONG[:CHUNK_LENGTH]

    def test_another_tenants_file_is_refused_by_the_guard(self, client: Client) -> None:
        with stored_in(base_url="/files/", partition=clinic_of):
            row = row_with(b"secret", "clinic-8/x")
            for method in (client.get, client.head):
                with partition_guard("clinic-7"), pytest.raises(PartitionMismatchError, match="outside the active"):
                    method(row.file.url)
            with partition_guard("clinic-8"):
                assert body(client.get(row.file.url)) == b"secret"


@pytest.mark.django_db(transaction=True)
class TestASGI:
    @pytest.fixture
    def client(self, db: None) -> AsyncClient:
        found = AsyncClient()
        found.force_login(user_with("view"))
        return found

    async def read(self, response: Any) -> bytes:
        return b"".join([part async for part in response.streaming_content])

    @pytest.mark.parametrize(("wanted", "expected"), [("", LONG), ("bytes=5-70000", LONG[5:70001])])
    def test_streams_without_a_warning_and_without_reading_all(
        self, client: AsyncClient, wanted: str, expected: bytes
    ) -> None:
        url = row_with(LONG).file.url

        async def ask() -> bytes:
            response = await client.get(url, headers={"Range": wanted})
            assert response.is_async
            return await self.read(response)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert async_to_sync(ask)() == expected

    def test_damage_breaks_off(self, client: AsyncClient, inner: InMemoryStorage) -> None:
        row = row_with(LONG)
        damage(inner, row.file.name, 2 * CHUNK_LENGTH)

        async def ask() -> None:
            with pytest.raises(DecryptionError):
                await self.read(await client.get(row.file.url))

        async_to_sync(ask)()


def test_memory_is_bounded(client: Client) -> None:
    url = row_with(bytes(32 * 1024**2)).file.url

    def work() -> int:
        response = client.get(url)
        try:
            return sum(map(len, response.streaming_content))
        finally:
            close(response)

    length, peak = peak_of(work)
    assert length == 32 * 1024**2
    assert peak < 4 * 1024**2


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({}, "'file'"),
        ({"model": Note}, r"testapp\.Note\.file"),
        ({"model": Note, "field": "title"}, r"testapp\.Note\.title"),
    ],
)
def test_is_refused_when_it_is_defined_without_such_a_field(options: dict[str, Any], served: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^EncryptedFileView serves {served}, which is no FileField over"):
        EncryptedFileView.as_view(**options)


def test_closes_the_file(client: Client, tmp_path: Path) -> None:
    opened: list[Any] = []

    class Watching(FileSystemStorage):
        def _open(self, name: str, mode: str = "rb") -> Any:
            opened.append(super()._open(name, mode))  # type: ignore[misc]
            return opened[-1]

    FIELD.storage._storage = Watching(tmp_path)
    row = row_with(LONG)
    body(client.get(row.file.url))
    client.head(row.file.url)
    close(client.get(row.file.url))
    client.get(row.file.url, headers={"Range": "bytes=999999999-"})
    assert [file.closed for file in opened] == [True] * 4
