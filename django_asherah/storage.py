"""A storage that encrypts what another storage keeps."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any, cast
from urllib.parse import urljoin

from django.core.files.base import File
from django.core.files.storage import InMemoryStorage, Storage, storages
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri

from django_asherah import engine
from django_asherah.envelope.files import CHUNK_LENGTH, Header, header_like, read_header, seal_chunks
from django_asherah.envelope.streams import OpeningReader, SealingReader, at_file
from django_asherah.exceptions import EncryptionError
from django_asherah.leftovers import is_local, remove_leftover
from django_asherah.s3reader import in_ranges, reads_in_ranges


class _NoURLError(NotImplementedError, AttributeError):
    """As Django's form widgets and Django REST framework ask whether a file has a URL with ``getattr()``."""


@deconstructible(path="django_asherah.storage.EncryptedStorage")
class EncryptedStorage(Storage):
    """Encrypts each file under a key of its own on the way into another storage, chunk by chunk in bounded memory.

    Names, times and (nearly) sizes of the files stay visible, and one file can be swapped for another.

    Args:
        storage: where the encrypted files go: an alias in ``STORAGES``, or a storage.
        partition: whose intermediate key seals the files' keys; ``ASHERAH["PARTITION"]`` if None. Or a function of a
            module, which takes a file's name and returns its partition: the same for the name to save under as for the
            one that the file gets.
        base_url: what ``url()`` puts before a name: the URL of an ``EncryptedFileView``, or of another view that serves
            the decrypted files.

    Raises:
        ValueError: the function is a lambda, inside of another one, or an object's method: migrations can't import it.
    """

    def __init__(
        self,
        storage: str | Storage = "encrypted",
        partition: str | Callable[[str], str] | None = None,
        base_url: str | None = None,
    ) -> None:
        if callable(partition) and not _is_importable(partition):
            raise ValueError(
                f"EncryptedStorage can't take {_name_of(partition)} as its partition, since migrations can't import "
                "it: give a function that a module defines at its top level"
            )
        self._storage = storage
        self.partition = partition
        self.base_url = base_url

    @property
    def storage(self) -> Storage:
        """The storage of the encrypted files."""
        return storages[self._storage] if isinstance(self._storage, str) else self._storage

    def open(self, name: str, mode: str = "rb") -> File[Any]:
        """Open a file to read its content, which is decrypted and authenticated as it is read.

        What was read before an error is what was saved, up to there.

        Raises:
            ValueError: the mode is not ``rb``: files are written whole, by ``save()``.
            AsherahError: it can't be opened, or has no partition. Reading it raises these, too.
        """
        if mode != "rb":
            raise ValueError(f"an encrypted file can be opened with mode 'rb' alone, not {mode!r}: write with save()")
        sealed = self._open_sealed(name)
        try:
            session = at_file(name, lambda: engine.get_session(self._partition_of(name)))
            reader: Any = OpeningReader(name, sealed, session)
        except BaseException:
            sealed.close()
            raise
        return File(io.BufferedReader(reader, CHUNK_LENGTH), name)

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Save a file encrypted, and return its actual name. If that fails, no part of it stays.

        Raises:
            EncryptionError: it has no partition; its key could be rolled back, and the file would stay; or the name
                that it gets is in another partition than the one that was asked for.
            PartitionMismatchError: a ``partition_guard`` is active that does not allow its partition.
            KMSError, MetastoreError: there is no key.
        """
        if not hasattr(content, "chunks"):
            content = File(content, name)
        # Not the content itself with another read(): FileSystemStorage moves an upload's temporary file as it is.
        name = str(name or content.name)
        partition = at_file(name, lambda: self._partition_of(name))
        sealed = at_file(name, lambda: SealingReader(lambda: self._seal(content, partition)))
        available = self.get_available_name(name, max_length)
        if callable(self.partition):  # Before anything is written: it may take the place of another file.
            self._require_partition(available, partition)
        saved = self._write(available, sealed, max_length)
        try:
            self._require_partition(saved, partition)
        except BaseException:
            self.storage.delete(saved)  # It would never open.
            raise
        return saved

    def size(self, name: str) -> int:
        """Return the length of a file's content, as its length in the storage has it. Never downloads the file.

        Where only the whole file can be read, this takes its header to be as long as one with the configured
        ``KEY_SUFFIX``: of a file that was written with a longer or shorter one, it is off by the difference.

        Raises:
            InvalidRecordError: it is no encrypted file, as far as that can be told: in a storage that can read only
                whole files, by its length alone.
            EncryptionError: it has no partition.
            PartitionMismatchError: a ``partition_guard`` is active that does not allow its partition.
        """
        session = at_file(name, lambda: engine.get_session(self._partition_of(name)))
        if not self._reads_in_place(name):
            header = header_like(session.partition.intermediate_key_id)
            return at_file(name, lambda: header.content_length(self.storage.size(name)))
        with self._open_sealed(name) as sealed:
            return at_file(name, lambda: read_header(sealed).content_length(sealed.seek(0, io.SEEK_END)))

    def url(self, name: str | None) -> str:
        """Return the URL of the view that ``base_url`` names, for this file.

        Raises:
            NotImplementedError: there is no ``base_url``, and the storage's own URL would serve ciphertext. It is an
                ``AttributeError``, too: a form and a serializer then show that there is no URL, and don't fail.
        """
        if self.base_url is None:
            raise _NoURLError(
                "an encrypted file has no URL of its own: give EncryptedStorage the base_url of a view that serves it"
            )
        return urljoin(self.base_url, (filepath_to_uri(name) or "").lstrip("/"))

    def _open_sealed(self, name: str) -> Any:
        return in_ranges(self.storage, self.storage.open(name, "rb"))

    def _reads_in_place(self, name: str) -> bool:
        """Tell whether a file's header can be read without the rest, or nothing but the whole tells its length."""
        storage: Any = self.storage
        is_compressed = getattr(storage, "gzip", False)
        is_here = isinstance(storage, InMemoryStorage) or is_local(storage, name)
        return is_compressed or is_here or reads_in_ranges(storage)

    def _write(self, name: str, sealed: SealingReader, max_length: int | None) -> str:
        content: File[Any] = File(cast("Any", sealed), name)
        try:
            return at_file(name, lambda: self.storage.save(name, content, max_length=max_length))
        except BaseException as exc:
            if not sealed.is_new:
                try:
                    remove_leftover(self.storage, name, sealed.header)
                except Exception as cause:
                    exc.add_note(f"A part of file {name!r} may be left, as it could not be looked for: {cause!r}")
            raise

    def _partition_of(self, name: Any) -> str | None:
        if not callable(self.partition):
            return self.partition
        partition = self.partition(str(name))
        # None would be ASHERAH["PARTITION"], which nobody chose.
        if not isinstance(partition, str):
            raise EncryptionError(
                f"{_name_of(self.partition)} returned {partition.__class__.__name__} for it: "
                "it must return the file's partition, a str"
            )
        return partition

    def _require_partition(self, name: str, partition: str | None) -> None:
        """Refuse a name that the storage has chosen unless it is in the partition of the name that was asked for."""
        found = at_file(name, lambda: self._partition_of(name))
        if found != partition:
            raise EncryptionError(
                f"file {name!r}: the storage chose this name, for which {_name_of(self.partition)} returns partition "
                f"{found!r}, and not {partition!r} as for the name that was asked for: let it look at a part of the "
                "name that the storage keeps, such as its first folder"
            )

    def _seal(self, content: Any, partition: str | None) -> tuple[bytes, Iterator[bytes]]:
        """Make the file's key now, and return its header and its chunks."""
        session = engine.get_session(partition)
        record, stream = session.start_file()
        # A file is not rolled back with the transaction that its key may be of.
        engine.require_committed_key(session.newest_key(), "the file storage")
        pieces = (piece.encode() if isinstance(piece, str) else piece for piece in content.chunks())
        return Header(record.encode()).encode(), seal_chunks(stream, pieces)

    def delete(self, name: str) -> None:
        """Delete a file."""
        self.storage.delete(name)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return self.storage.exists(name)

    def listdir(self, path: str) -> Any:
        """Return the directories and the files of a path."""
        return self.storage.listdir(path)

    def get_accessed_time(self, name: str) -> Any:
        """Return when a file was last read."""
        return self.storage.get_accessed_time(name)

    def get_created_time(self, name: str) -> Any:
        """Return when a file was made."""
        return self.storage.get_created_time(name)

    def get_modified_time(self, name: str) -> Any:
        """Return when a file was last written."""
        return self.storage.get_modified_time(name)

    def get_valid_name(self, name: str) -> str:
        """Return a name that the storage of the encrypted files takes."""
        return self.storage.get_valid_name(name)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """Return a name that is free there."""
        return self.storage.get_available_name(name, max_length=max_length)

    def generate_filename(self, filename: str | PathLike[str]) -> str:
        """Return a name from ``upload_to`` and the upload's own."""
        return self.storage.generate_filename(filename)


def _is_importable(function: Any) -> bool:
    is_of_an_object = inspect.ismethod(function) and not inspect.isclass(function.__self__)
    return not is_of_an_object and "<" not in getattr(function, "__qualname__", "")


def _name_of(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}" if hasattr(function, "__qualname__") else repr(function)
