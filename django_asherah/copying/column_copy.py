"""A copy of another library's encrypted column in one of ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.dispatch import Signal
from django.views.decorators.debug import sensitive_variables

from django_asherah import audit, signals
from django_asherah.copying.old_column import NotAValueError, OldColumn
from django_asherah.copying.plausibility import Plausibility
from django_asherah.copying.proof import require_canaries, require_sample
from django_asherah.exceptions import AsherahError
from django_asherah.fields import EncryptedFieldMixin, EncryptedQuerySet
from django_asherah.lifecycle.columns import advanced
from django_asherah.lifecycle.exact_session import exact_session


class ColumnCopy:
    """Copies what another library's field decrypts into a field of ours, and compares both.

    It begins with the proof that the library has its right key, and takes no row's ciphertext or garbage for a value.
    Any field that decrypts when it is read can be the old one, one of ours too.
    """

    @sensitive_variables("canary")
    def __init__(
        self,
        model: type[models.Model],
        old: str,
        new: str,
        *,
        canary: Mapping[Any, Any] | None = None,
        risk_a_wrong_key: bool = False,
        plausible: Callable[[Any], object] | None = None,
        accept: Collection[Any] = (),
        least: float = 0.9,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """Name the two fields, and what proves the key.

        Args:
            model: the model that has both.
            old: the other library's field.
            new: the field of ours. Its type says what values are.
            canary: values that the old field must give, by primary key. None of them may be empty.
            risk_a_wrong_key: whether to do without, and so to take the sample for proof enough.
            plausible: tells whether a value can be one, where the application knows. It replaces the question whether
                text looks like ciphertext or a token; the others are still asked.
            accept: primary keys of rows whose values the application has looked at: only their type is asked for.
            least: the least share of the sample that must be plausible, above 0 and up to 1.
            using: the database.

        Raises:
            TypeError: the new field is none of ours.
            ValueError: there is no canary, or the share is no such number.
        """
        field = model._meta.get_field(new)
        if not isinstance(field, EncryptedFieldMixin):
            raise TypeError(f"{model._meta.label}.{new} is not an encrypted field of django-asherah")
        if not canary and not risk_a_wrong_key:
            raise ValueError(
                f"{model._meta.label}.{old}: name a canary={{primary key: its value}}, or do without it with "
                "risk_a_wrong_key=True"
            )
        if not 0 < least <= 1:
            raise ValueError(f"least is {least}, and must be above 0 and no more than 1")
        self._model, self._new, self._field, self._using = model, new, field, using
        self._canary, self._least = dict(canary or {}), least
        self._values = 0
        self._old = OldColumn(model, old, using, Plausibility(field, plausible), frozenset(accept))

    def prove(self) -> None:
        """Require the canaries, and a random sample of up to 300 values that are nearly all plausible.

        Raises:
            ProofError: the old library has not its right key, as far as can be seen.
        """
        with exact_session(connections[self._using]):
            require_canaries(self._old, self._canary)
            require_sample(self._old, self._least)

    def copy(self, size: int = 200) -> dict[Any, str]:
        """Copy what is not copied yet, after the proof; run it again to resume.

        A batch is one transaction with its rows locked, where the database can lock rows. Signals are not sent.

        Args:
            size: rows of a batch.

        Returns:
            What was left, with NULL in its new column: primary keys, and why.

        Raises:
            ProofError: nothing was written, because the old library has not its right key.
            KMSError, MetastoreError: there is no key for the new values.
            OperationalError: the database failed, or its primary keys are not what it says.
        """
        left: dict[Any, str] = {}
        with self._recorded(signals.data_copied, "column_copied", left), exact_session(connections[self._using]):
            self.prove()
            rows = self._old.rows().filter(**{f"{self._new}__isnull": True}).order_by("pk")
            ends: set[Any] = set()
            batch = self._copy_batch(rows[:size], left)
            while batch:
                end = advanced(ends, batch[-1], self._old.label)
                batch = self._copy_batch(rows.filter(pk__gt=end)[:size], left)
        return left

    def compare(self) -> dict[Any, str]:
        """Compare all rows, after the proof.

        Returns:
            Primary keys of the rows whose new value is not what the old field gives, and why. What the old field gives
            must be plausible, so that the same garbage in both is found, too.

        Raises:
            ProofError: nothing can be said, because the old library has not its right key.
        """
        unlike: dict[Any, str] = {}
        with self._recorded(signals.data_compared, "column_compared", unlike), exact_session(connections[self._using]):
            self.prove()
            table = self._model._base_manager.using(self._using)
            lost = table.filter(**{f"{self._old.name}__isnull": True, f"{self._new}__isnull": False})
            unlike |= dict.fromkeys(lost.values_list("pk", flat=True), "the old column is NULL")
            for row in self._old.rows().iterator():
                if fault := self._difference(row):
                    unlike[row.pk] = fault
                else:
                    self._values += 1
        return unlike

    def _recorded(self, signal: Signal, action: str, bad: Mapping[Any, str]) -> AbstractContextManager[None]:
        self._values = 0
        return audit.recorded(
            signal,
            action,
            lambda: {
                "column": self._field.full_name,
                "database": self._using,
                "old": self._old.name,
                "values": self._values,
                "bad": len(bad),
            },
            has_problems=lambda: bool(bad),
        )

    @sensitive_variables()
    def _copy_batch(self, rows: Any, left: dict[Any, str]) -> list[Any]:
        """Copy some rows; return the primary keys of all of them."""
        with transaction.atomic(using=self._using):
            batch = list(rows.select_for_update())
            copied = []
            for row in batch:
                try:
                    self._set(row)
                except NotAValueError as exc:
                    left[row.pk] = str(exc)
                else:
                    copied.append(row)
            EncryptedQuerySet(self._model, using=self._using).bulk_update(copied, [self._new])
        self._values += len(copied)
        return [row.pk for row in batch]

    @sensitive_variables()
    def _set(self, row: models.Model) -> None:
        value = self._old.value(row)
        try:
            self._field.prepare(value, row)
        except AsherahError as exc:
            raise NotAValueError(str(exc)) from None
        setattr(row, self._new, value)

    @sensitive_variables()
    def _difference(self, row: models.Model) -> str:
        try:
            value = self._old.value(row)
            new = getattr(row, self._new)
        except NotAValueError as exc:
            return str(exc)
        except AsherahError as exc:
            return f"the new value: {type(exc).__name__}"
        if new is None:
            return "it is not copied"
        return "" if new == value else "the new value is another"
