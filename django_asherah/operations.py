"""Migration operations for populated columns: ``EncryptField``, ``DecryptField`` and ``AlterRecordFormat``.

Another ``partition`` takes none of these: Django's ``AlterField`` changes no column then, and ``asherah_reencrypt``
with ``--moved`` seals the values for it. Between the two they don't open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from typing import Any

from django.db import DatabaseError, DataError, NotSupportedError, models, transaction
from django.db.migrations.operations import AlterField
from django.db.models.signals import post_migrate
from tqdm import tqdm

from django_asherah.exceptions import DecryptionError, EncryptionError
from django_asherah.fields import EncryptedFieldMixin
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.conversion import decrypt_column, encrypt_column
from django_asherah.lifecycle.database_errors import reason_of, refusal_of
from django_asherah.lifecycle.exact_session import exact_session
from django_asherah.lifecycle.giving_way import HeldError, insist
from django_asherah.lifecycle.ledger import Ledger, drop_finished
from django_asherah.lifecycle.mysql_column import in_own_collation, is_json
from django_asherah.lifecycle.plain_column import PlainColumn
from django_asherah.lifecycle.progress import Progress

_PLAIN = (models.CharField, models.TextField, models.JSONField)
_TRANSLATE = ("from_db_value", "get_placeholder")
"""What a field has whose column holds something else than its values, as other libraries' encrypted fields do."""


class _ConvertField(AlterField):
    """An ``AlterField`` between a plain and an encrypted field that converts the values, too.

    It works in batches, each in a transaction of its own, so its migration needs ``atomic = False``. Interrupted at any
    moment, ``migrate`` goes on where it stopped. Only the data decides: no ``save()``, no signals, no managers.
    """

    atomic = False
    verb: str

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Convert the column, from plain to encrypted or back, whichever the states say.

        Raises:
            NotSupportedError: the migration is atomic, and not only on databases that can't roll such a thing back.
            TypeError: the two fields are not a plain and an encrypted one.
            ValueError: they are not of the same column.
            EncryptionError, DecryptionError: some values can't be converted, and are left as they were.
        """
        from_model = from_state.apps.get_model(app_label, self.model_name)
        to_model = to_state.apps.get_model(app_label, self.model_name)
        alias = schema_editor.connection.alias
        if not self.allow_migrate_model(alias, to_model):
            return
        old, new = from_model._meta.get_field(self.name), to_model._meta.get_field(self.name)
        _require_a_pair(old, new, schema_editor.connection)
        encrypts = isinstance(new, EncryptedFieldMixin)
        if schema_editor.collect_sql:
            schema_editor.collected_sql.append(f"-- {self.name}: its values are {self.verb}ed too, which is no SQL.")
            schema_editor.alter_field(from_model, old, new)
            return
        _require_no_transaction(self, schema_editor)
        with _progress(f"{to_model._meta.label}.{self.name}") as progress:
            if encrypts:
                _encrypt(schema_editor, (from_model, old), Column(to_model, new, alias), progress)
            else:
                _decrypt(schema_editor, Column(from_model, old, alias), (to_model, new), progress)

    def describe(self) -> str:
        """Say what it does."""
        return f"{self.verb.capitalize()} field {self.name} of {self.model_name}"

    @property
    def migration_name_fragment(self) -> str:
        """What ``makemigrations`` would call it."""
        return f"{self.verb}_{self.model_name_lower}_{self.name_lower}"

    def reduce(self, operation: Any, app_label: str) -> Any:
        """Never be merged into what follows: a plain ``AlterField`` would leave the values behind."""
        return super(AlterField, self).reduce(operation, app_label)


class EncryptField(_ConvertField):
    """Make an encrypted field of a ``TextField``, ``CharField`` or ``JSONField`` whose column holds values.

    Takes what ``AlterField`` takes. Reversed, it decrypts.
    """

    verb = "encrypt"


class DecryptField(_ConvertField):
    """Make a ``TextField``, ``CharField`` or ``JSONField`` of an encrypted field whose column holds records.

    Takes what ``AlterField`` takes. Reversed, it encrypts.
    """

    verb = "decrypt"


class AlterRecordFormat(AlterField):
    """An ``AlterField`` between two values of ``record_format``: changes the column's type and leaves the records.

    Takes what ``AlterField`` takes. The records stay as they are, and every format is read in every column that can
    hold it; ``asherah_reencrypt`` then rewrites them. Nothing but the format and ``null`` may change along with it.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Change the column.

        Raises:
            DataError: the column becomes text, and still holds compact records.
        """
        from_model = from_state.apps.get_model(app_label, self.model_name)
        to_model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, to_model):
            return
        old, new = from_model._meta.get_field(self.name), to_model._meta.get_field(self.name)
        failure = ""
        try:
            with exact_session(schema_editor.connection):
                schema_editor.alter_field(from_model, _change_type(schema_editor, from_model, old, new), new)
        except DatabaseError as exc:
            failure = refusal_of(exc)
            if not failure:
                raise
        # Not from within the handler: the database's message holds the first bytes that are no text.
        if failure:
            raise DataError(
                f"{to_model._meta.label}.{self.name}: the column still holds compact records, or other bytes that are "
                f"no text ({failure}). Give the field record_format='json-binary', and run asherah_reencrypt first"
            )

    def describe(self) -> str:
        """Say what it does."""
        return f"Alter record format of field {self.name} on {self.model_name}"


def _change_type(schema_editor: Any, model: Any, old: Any, new: Any) -> Any:
    """Change the column's type, byte for byte, and return the field that it is of now.

    On PostgreSQL, Django's own ``USING column::type`` would take the text for escaped bytes, and write the bytes as
    hexadecimal text. On MySQL, text becomes bytes in the column's character set, and bytes are taken for text of the
    table's: both have to be UTF-8 in between.
    """
    connection = schema_editor.connection
    type_ = new.db_type(connection)
    if type_ == old.db_type(connection) or connection.vendor == "sqlite":
        return old
    table, name = schema_editor.quote_name(model._meta.db_table), schema_editor.quote_name(old.column)
    if connection.vendor == "mysql":
        null = "NULL" if old.null else "NOT NULL"
        schema_editor.execute(f"ALTER TABLE {table} MODIFY {name} longtext CHARACTER SET utf8mb4 {null}")
        return old
    convert = "convert_to" if type_ == "bytea" else "convert_from"
    schema_editor.execute(f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {type_} USING {convert}({name}, 'UTF8')")
    changed = copy(new)
    changed.null, changed.column = old.null, old.column
    return changed


def _require_a_pair(old: Any, new: Any, connection: Any) -> None:
    plain, encrypted = (old, new) if isinstance(new, EncryptedFieldMixin) else (new, old)
    name = f"{new.model._meta.label}.{new.name}"
    if not isinstance(encrypted, EncryptedFieldMixin):
        raise TypeError(f"{name}: one of the two fields must be encrypted: neither is")
    if isinstance(plain, EncryptedFieldMixin):
        raise TypeError(
            f"{name}: the field was encrypted before this migration. If an AlterField left its values unencrypted, "
            "give it allow_plaintext=True, and run asherah_reencrypt"
        )
    if not isinstance(plain, _PLAIN):
        raise TypeError(
            f"{name}: {type(plain).__name__} is no TextField, CharField or JSONField; add an encrypted field beside "
            "it, copy the values in Python, and remove the old field"
        )
    kind = next(each for each in _PLAIN if isinstance(plain, each))
    if any(getattr(type(plain), each, None) is not getattr(kind, each, None) for each in _TRANSLATE):
        raise TypeError(
            f"{name}: {type(plain).__name__} makes something else of what its column holds. If it is another library's "
            "encrypted field, copy its values with ColumnCopy: this would take its ciphertext for them. If the column "
            f"holds plain text, say so by an AlterField between it and {kind.__name__} in a migration of its own"
        )
    if encrypted.db_type(connection) != models.TextField().db_type(connection):
        raise ValueError(
            f"{name}: the encrypted field must have record_format='json' for this; change it before or after"
        )
    if (plain.column, plain.null) != (encrypted.column, encrypted.null):
        raise ValueError(f"{name}: change the column's name and null in a migration of their own")


def _require_no_transaction(operation: AlterField, schema_editor: Any) -> None:
    if schema_editor.atomic_migration or schema_editor.connection.in_atomic_block:
        raise NotSupportedError(
            f"{type(operation).__name__} commits every batch on its own, so that it can go on after an interruption: "
            "set atomic = False on its migration"
        )


def _encrypt(schema_editor: Any, plain: tuple[Any, Any], column: Column, progress: Progress) -> None:
    # The digests of values that an earlier decryption left must not outlive the values.
    Ledger(column, "decrypt").drop()
    if failure := _alter(schema_editor, column, plain, column.field):
        raise EncryptionError(failure)
    encrypt_column(column, progress)


def _decrypt(schema_editor: Any, column: Column, plain: tuple[Any, Any], progress: Progress) -> None:
    Ledger(column, "encrypt").drop()
    if Ledger(column, "decrypt").exists():
        if _is_json(schema_editor.connection, column):
            return  # The type comes last. And it writes values in its own way, which the digests don't know.
        if failure := _alter(schema_editor, column, plain, column.field):
            raise DecryptionError(failure)
    becomes = PlainColumn(column, plain[1])
    decrypt_column(column, progress, becomes)
    if failure := _alter(schema_editor, column, (column.model, column.field), plain[1], becomes.require_kept):
        raise DecryptionError(failure)


def _alter(
    schema_editor: Any,
    column: Column,
    before: tuple[Any, Any],
    after: Any,
    require: Callable[[], object] | None = None,
) -> str:
    """Change a column's type; return why the database refuses to, if it does: its own message may hold a value.

    Args:
        schema_editor: Django's.
        column: the column.
        before: its model and its field as they are.
        after: the field that it is to be of.
        require: asks, in the same transaction, whether it may be.

    Raises:
        HeldError: others kept the table.
    """
    connection, deferred = schema_editor.connection, list(schema_editor.deferred_sql)
    model, old = before
    new = in_own_collation(connection, column, after)

    def alter() -> None:
        schema_editor.deferred_sql[:] = deferred
        # SQLite copies the table, and may not be interrupted in between. MariaDB needs one statement for a type.
        with transaction.atomic(using=connection.alias) if connection.features.can_rollback_ddl else nullcontext():
            if require is not None:
                require()
            schema_editor.alter_field(model, old, new)

    what = f"{column.label}: the column's change to {type(after).__name__}"
    try:
        with exact_session(connection):
            insist(connection.alias, alter, what)
    except HeldError:
        raise
    except DatabaseError as exc:
        return f"{what} fails, because of a value in it or otherwise: {reason_of(exc)}"
    return ""


def _is_json(connection: Any, column: Column) -> bool:
    """Tell whether the column is of a type that keeps documents in a form of its own, as MariaDB's doesn't."""
    if connection.vendor == "mysql":
        return is_json(connection, column)
    if connection.vendor != "postgresql":
        return False
    table, name = column.model._meta.db_table, column.field.column
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, table)
    return any(
        described.name == name and connection.introspection.data_types_reverse.get(described.type_code) == "JSONField"
        for described in found
    )


@contextmanager
def _progress(label: str) -> Iterator[Progress]:
    with tqdm(desc=f"  {label}", unit="value", disable=None, leave=False, unit_scale=True) as bar:
        yield bar.update


def _drop_finished_ledgers(*, sender: Any, using: str, **kwargs: Any) -> None:
    # flush sends this signal too, without a plan.
    if sender.label == "django_asherah" and "plan" in kwargs:
        drop_finished(using, kwargs["apps"])


post_migrate.connect(_drop_finished_ledgers, dispatch_uid="django_asherah.operations")
