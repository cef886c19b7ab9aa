"""What every encrypted field is to Django: its options, the type of its column, and what it lets the database do."""

from __future__ import annotations

from functools import partial
from operator import ge, le
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connection as default_connection
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col
from django.utils.functional import cached_property

from django_asherah.fields.attribute import EncryptedAttribute, RowAttribute
from django_asherah.fields.column import ColumnMixin
from django_asherah.fields.formats import FORMATS, get_placeholder
from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.guards import EncryptedExact, RefusedTransform, refuse_misuse
from django_asherah.fields.loading import load_with_rows
from django_asherah.fields.options import check_options
from django_asherah.fields.packets import count_record
from django_asherah.fields.partitions import check_partition
from django_asherah.fields.pending import require_whole_upsert
from django_asherah.fields.refusals import refuse_db_default, refuse_lookup
from django_asherah.fields.selecting import EncryptedCol
from django_asherah.fields.template import PartitionTemplate
from django_asherah.fields.watching import watch

if TYPE_CHECKING:
    from django.db.models.lookups import Lookup


class EncryptedFieldMixin(ColumnMixin[Set_contra, Get_co]):
    """Makes an encrypted field of any Django field: ``class EncryptedSlug(EncryptedFieldMixin, models.SlugField)``.

    The column is of type text and holds a data row record's JSON, or NULL for None; with ``record_format="compact"`` it
    is a binary one, and its records are half as long. A value is always encrypted, whatever it looks like. The database
    can't compare, order or compute with it: whatever would need that raises ``FieldError`` before any SQL is sent.
    Forms, validation and serialization are the plain field's.

    A field whose values are not restored by ``to_python(str(value))`` overrides :meth:`dump` and :meth:`load`. What
    these raise is never shown, as it may hold the value; ``EncryptionError`` and ``DecryptionError`` are.

    Args:
        partition: whose intermediate key seals the values; ``ASHERAH["PARTITION"]`` if None. With columns of the same
            table between braces, ``clinic-{clinic_id}``, each row says whose.
        allow_plaintext: read values that are not encrypted yet, while a populated column is being encrypted. What
            looks like a record is never taken for plaintext, so that a damaged record stays an error. Writes are always
            encrypted.
        record_format: ``json``, in a text column, which every Asherah SDK reads; ``compact``, in a binary column, which
            only this app reads; ``json-binary``, on the way back. Whichever it is, a record of each is read.

    Raises:
        ValueError: there is no such format, or the partition has braces that can't be read.
    """

    # Neither changes the column.
    non_db_attrs = (*models.Field.non_db_attrs, "partition", "allow_plaintext")

    descriptor_class = EncryptedAttribute

    def __init__(
        self,
        *args: Any,
        partition: str | None = None,
        allow_plaintext: bool = False,
        record_format: str = "json",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if record_format not in FORMATS:
            raise ValueError(f"record_format {record_format!r} is none of {', '.join(FORMATS)}")
        self.partition = partition
        self.template = PartitionTemplate.find(partition)
        if self.template is not None:
            self.descriptor_class = RowAttribute
        self.allow_plaintext = allow_plaintext
        self.format = FORMATS[record_format]

    def contribute_to_class(self, cls: type[models.Model], name: str, **kwargs: Any) -> None:  # type: ignore[override]
        """Become a field of a model, also of one that was there before."""
        super().contribute_to_class(cls, name, **kwargs)
        if cls._meta.apps.all_models[cls._meta.app_label].get(str(cls._meta.model_name)) is cls:
            watch(cls)

    def deconstruct(self) -> Any:
        """Return what recreates the field; never a secret."""
        name, path, args, kwargs = super().deconstruct()
        if path.startswith("django_asherah.fields."):  # Migrations must outlive a move of the class in here.
            path = f"django_asherah.fields.{type(self).__name__}"
        if self.partition is not None:
            kwargs["partition"] = self.partition
        if self.allow_plaintext:
            kwargs["allow_plaintext"] = True
        if self.format.name != "json":
            kwargs["record_format"] = self.format.name
        return name, path, args, kwargs

    def get_placeholder(self, value: Any, compiler: Any, connection: BaseDatabaseWrapper) -> str:
        """Return what stands for a value in a statement.

        Raises:
            FieldError: the statement would store or compare a record where none belongs, or an ``INSERT`` would leave a
                row that is there with a value of another partition than it says.
            EncryptionError: MySQL or MariaDB would not take a statement as long.
        """
        refuse_misuse(compiler)
        if self.template is not None:
            require_whole_upsert(self, compiler.query)
        if connection.vendor == "mysql":
            count_record(self, value, compiler, connection)
        return get_placeholder(value, connection)

    def get_placeholder_sql(self, value: Any, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return what stands for a value in a statement, and its parameters, as Django 6.1 asks for them."""
        if hasattr(value, "as_sql"):
            return compiler.compile(value)
        return self.get_placeholder(value, compiler, connection), (value,)

    def get_internal_type(self) -> str:
        """Return how Django is to treat the column: as text, whatever the type of its values."""
        return "TextField"

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the type of the column."""
        return self.format.column.db_type(connection)

    def cast_db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column's type as ``CAST`` wants it."""
        if not self.format.is_binary:
            return super().cast_db_type(connection)
        return "binary" if connection.vendor == "mysql" else self.db_type(connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return how to read the column: by :meth:`from_db_value` alone, whatever a plain column would need."""
        return [self.from_db_value]

    @cached_property
    def validators(self) -> Any:
        """The plain field's validators; an integer keeps to the range of a plain column."""
        if not isinstance(self, models.IntegerField):
            return super().validators
        # Django would look up the range of this column's type, and text has none.
        least, most = default_connection.ops.integer_field_range(super().get_internal_type())
        limits = [(MinValueValidator, least, ge), (MaxValueValidator, most, le)]
        own = super(models.IntegerField, self).validators
        return [
            *own,
            *(
                validator(limit)
                for validator, limit, keeps in limits
                if limit is not None and not any(keeps(given, limit) for given in _limits(own, validator))
            ),
        ]

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        """Return the SQL that selects the column; its keys come with its rows."""
        load_with_rows(compiler)
        return super().select_format(compiler, sql, params)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """Return the record of a ``Value()`` with this output field, which stands beside a column's records.

        Raises:
            EncryptionError, KMSError, MetastoreError: it can't be sealed.
            FieldError: only a row says the partition.
        """
        return self.get_db_prep_save(value, connection)

    def get_lookup(self, lookup_name: str) -> type[Lookup[Any]] | None:
        """Return the lookup for ``isnull`` and ``exact`` (of None); refuse every other one."""
        if lookup_name == "isnull":
            return super().get_lookup(lookup_name)
        if lookup_name == "exact":
            return EncryptedExact
        raise refuse_lookup(self, lookup_name)

    def get_transform(self, lookup_name: str) -> Any:
        """Return what refuses to be used, for every transform and key path."""
        return partial(RefusedTransform, lookup_name)

    @property
    def _db_default_expression(self) -> Any:
        """Refuse: the database would store no record, and ``asherah.E104`` can be silenced."""
        raise refuse_db_default(self)

    def _check_db_default(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Leave it to ``asherah.E104``."""
        return []

    def get_col(self, alias: str, output_field: Any = None) -> Col:
        """Return the column as an expression that watches what it is used for, and for no other query."""
        return EncryptedCol(alias, self, output_field)

    @property
    def cached_col(self) -> Col:
        """The column under its table's own name: another one for each query, as it knows what that makes of it."""
        return EncryptedCol(self.model._meta.db_table, self)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Report what can't be: ``asherah.E101`` to ``E104``, ``E118``, and ``E120`` to ``E127`` for the partition."""
        return [*super().check(**kwargs), *check_options(self), *check_partition(self)]


def _limits(validators: list[Any], kind: type[Any]) -> list[Any]:
    """Return the limits that validators of a kind keep to."""
    limits = [each.limit_value for each in validators if isinstance(each, kind)]
    return [limit() if callable(limit) else limit for limit in limits]
