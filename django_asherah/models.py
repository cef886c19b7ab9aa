"""The key table: where the database metastore keeps its key records."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_asherah.dumps import add_key
from django_asherah.envelope.records import printable
from django_asherah.metastores.sql import loadable_created


class KeyIdField(models.CharField):  # type: ignore[type-arg]
    """A key id, compared byte for byte on every backend.

    MySQL's and MariaDB's default collations fold case: partitions ``Alice`` and ``alice`` would share a key.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Return Django's column parameters, with a binary collation where the default is not one."""
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


class KeyCreatedField(models.DateTimeField):  # type: ignore[type-arg]
    """When a key was created; None for what is no time that Python has in every zone.

    The column may hold such a time: drivers would refuse all rows that are read together for it.
    """

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """Return the SQL that selects the column."""
        return loadable_created(compiler.connection.vendor, sql), params

    def deconstruct(self) -> Any:
        """Return the column as migrations know it: the database has a ``DateTimeField``."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs


class EncryptionKeyManager(models.Manager["EncryptionKey"]):
    """Finds a key by what names it."""

    def get_by_natural_key(self, key_id: str, created: Any) -> EncryptionKey:
        """Return the row of the key with this id and creation time."""
        return self.get(key_id=key_id, created=created)


class EncryptionKey(models.Model):
    """One system key or intermediate key: Asherah's ``encryption_key`` table, shared with every official SDK.

    The table and its three columns ``id``, ``created`` and ``key_record`` are the contract with the SDKs
    (``docs/Metastore.md`` of godaddy/asherah) and may never change. ``row_id`` is ours alone, because
    Django's admin can't show a composite primary key; the metastore never touches it.
    """

    row_id = models.BigAutoField(primary_key=True)
    key_id = KeyIdField("key id", max_length=255, db_column="id")
    created = KeyCreatedField()
    key_record = models.JSONField()

    objects = EncryptionKeyManager()

    class Meta:
        db_table = "encryption_key"
        verbose_name = "encryption key"
        # Rows are made and deleted by nobody but the engine, so there is nothing else to permit.
        default_permissions = ("view",)
        permissions: ClassVar[list[tuple[str, Any]]] = [
            ("verify_encryptionkey", "Can verify encryption keys in every region"),
            ("revoke_encryptionkey", "Can revoke encryption keys"),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["key_id", "created"], name="encryption_key_id_created"),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["created"], name="encryption_key_created")]

    def __str__(self) -> str:
        created = f"{self.created:%Y-%m-%d %H:%M:%S}" if self.created else "at a time that can't be shown"
        return f"{printable(self.key_id)} created {created}"

    def natural_key(self) -> tuple[str, Any]:
        """Return what names a key, in a dump as well."""
        return (self.key_id, self.created)

    def _save_table(  # noqa: PLR0917 - Django's own
        self,
        raw: bool = False,
        cls: Any = None,
        force_insert: bool = False,
        force_update: bool = False,
        using: str = "",
        update_fields: Any = None,
    ) -> Any:
        """Add the key to those that stand, where Django would write it over the row that has its primary key.

        Of what ``loaddata`` calls, this is the one method that a model can have of its own.
        """
        if force_insert:
            return super()._save_table(raw, cls, force_insert, force_update, using, update_fields)  # type: ignore[misc]
        is_stored = add_key(using, self.key_id, self.key_record)
        self.row_id = self._find_row_id(using)
        return not is_stored

    def _find_row_id(self, using: str) -> Any:
        rows = type(self)._base_manager.using(using).filter(key_id=self.key_id, created=self.created)
        return rows.values_list("row_id", flat=True).first()
