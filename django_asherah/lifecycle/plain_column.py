"""What a plain column can hold: asked of the database itself, before a value is written there for good."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db import DatabaseError, connections, models

from django_asherah.envelope.parts import parts_by_length
from django_asherah.fields.packets import find_excess
from django_asherah.lifecycle.columns import Column
from django_asherah.lifecycle.database_errors import NotKeptError, refusal_of
from django_asherah.lifecycle.mysql_column import MySQLColumn, charset_of, describe_column
from django_asherah.lifecycle.quiet_cursor import quiet_cursor

_NUL = re.compile("\0")
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_HOLD_EVERYTHING = frozenset({"utf8mb4", "utf16", "utf16le", "utf32", "binary"})
_CHARACTERS_PER_QUESTION = 500
_MOST_NAMED = 20
_LENGTH_PER_QUESTION = 200_000
"""Characters of JSON that are sent together: far less than any database takes in a statement by default."""


class PlainColumn:
    """What a column of records becomes when it is decrypted."""

    def __init__(self, column: Column, field: models.Field[Any, Any]) -> None:
        self._connection: Any = connections[column.alias]
        self._column = column
        self._field = field
        self._is_json = isinstance(field, models.JSONField)
        self._max_length = field.max_length if isinstance(field, models.CharField) else None
        self._never = _NUL_IN_JSON if self._is_json else _NUL
        described = describe_column(self._connection, column) if self._connection.vendor == "mysql" else None
        self._charsets = _charsets(self._connection, described, field)
        self._held: dict[str, bool] = {}

    def unfit(self, texts: Sequence[str]) -> dict[int, str]:
        """Return which of these texts the column can't hold, by their place, and why.

        Raises:
            DatabaseError: the database failed. The error, and what hangs on it, may show a text.
        """
        unfit = {place: reason for place, text in enumerate(texts) if (reason := self._too_much(text))}
        unfit |= self._in_no_charset({place: text for place, text in enumerate(texts) if place not in unfit})
        if self._is_json:
            unfit |= self._no_json({place: text for place, text in enumerate(texts) if place not in unfit})
        return unfit

    def require_kept(self) -> None:
        """Require that the column's change of type leaves every value that stands in it as it is.

        PostgreSQL cuts what is too long if it is told to convert it, and MySQL the spaces at its end, strict or not.
        The caller has begun the transaction that changes the type; on PostgreSQL nobody writes to the table until then.

        Raises:
            NotKeptError: it would not.
            DatabaseError: the database failed. The error, and what hangs on it, may show a value.
        """
        quote, column = self._connection.ops.quote_name, self._column
        table, name = quote(column.model._meta.db_table), quote(column.field.column)
        if self._is_json or self._connection.vendor == "sqlite":
            return
        if self._connection.vendor == "postgresql":
            with self._connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            changed = f'{name}::{self._field.db_type(self._connection)}::text COLLATE "C" <> {name}::text COLLATE "C"'
        elif self._max_length is not None:
            changed = f"CHAR_LENGTH({name}) > {self._max_length}"
        else:
            return
        if keys := column.keys_where(changed, _MOST_NAMED + 1):
            named = ", ".join(f"pk={pk}" for pk in keys[:_MOST_NAMED])
            more = " and more" if len(keys) > _MOST_NAMED else ""
            raise NotKeptError(f"the column would not keep these values as they are: {named}{more}")

    def _too_much(self, text: str) -> str:
        if self._max_length is not None and len(text) > self._max_length:
            return f"it is longer than the {self._max_length} characters of the plain column"
        if self._connection.vendor == "postgresql" and self._never.search(text):
            return "it holds NUL, which PostgreSQL can't store in plain"
        return find_excess(self._connection, [text])

    def _in_no_charset(self, texts: dict[int, str]) -> dict[int, str]:
        if not self._charsets:
            return {}
        foreign = {place: {each for each in text if not each.isascii()} for place, text in texts.items()}
        self._ask_about(sorted(set().union(*foreign.values()).difference(self._held)))
        names = " and ".join(self._charsets)
        reason = f"it has a character that the column's character set ({names}) can't hold"
        return {place: reason for place, found in foreign.items() if not all(map(self._held.get, found))}

    def _ask_about(self, characters: list[str]) -> None:
        with quiet_cursor(self._connection) as cursor:
            for start in range(0, len(characters), _CHARACTERS_PER_QUESTION):
                asked = characters[start : start + _CHARACTERS_PER_QUESTION]
                self._held |= dict.fromkeys(asked, True)
                for charset in self._charsets:
                    there_and_back = f"CONVERT(CONVERT(%s USING {charset}) USING utf8mb4)"
                    cursor.execute(f"SELECT {', '.join([there_and_back] * len(asked))}", asked)
                    for one, back in zip(asked, cursor.fetchone(), strict=True):
                        self._held[one] &= one == back

    def _no_json(self, texts: dict[int, str]) -> dict[int, str]:
        ask = self._refused_by_jsonb if self._connection.vendor == "postgresql" else self._not_valid
        refused: dict[int, str] = {}
        for part in parts_by_length(texts.items(), _LENGTH_PER_QUESTION, lambda item: len(item[1])):
            refused |= ask(dict(part))
        return refused

    def _not_valid(self, texts: dict[int, str]) -> dict[int, str]:
        with quiet_cursor(self._connection) as cursor:
            cursor.execute(f"SELECT {', '.join(['JSON_VALID(%s)'] * len(texts))}", list(texts.values()))
            answers = cursor.fetchone()
        reason = "it is no JSON that this database can store"
        return {place: reason for place, is_valid in zip(texts, answers, strict=True) if not is_valid}

    def _refused_by_jsonb(self, texts: dict[int, str]) -> dict[int, str]:
        try:
            with quiet_cursor(self._connection) as cursor:
                cursor.execute(f"SELECT {', '.join(['%s::jsonb IS NULL'] * len(texts))}", list(texts.values()))
        except DatabaseError as exc:
            refusal = refusal_of(exc)
            if not refusal:
                raise
        else:
            return {}
        if len(texts) == 1:
            return dict.fromkeys(texts, refusal)
        places = list(texts)
        half = len(places) // 2
        return {
            place: reason
            for some in (places[:half], places[half:])
            for place, reason in self._refused_by_jsonb({each: texts[each] for each in some}).items()
        }


def _charsets(connection: Any, described: MySQLColumn | None, field: models.Field[Any, Any]) -> list[str]:
    """Return the character sets that a text passes through on MySQL, as far as there is a text that they can't hold."""
    if described is None:
        return []
    collation = getattr(field, "db_collation", None)
    found = {described.charset, charset_of(connection, collation) if collation else None}
    return sorted(each for each in found if each and each not in _HOLD_EVERYTHING)
