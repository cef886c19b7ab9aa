"""Second looks at rows that could not be replaced as they had been read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_asherah.lifecycle.columns import Column, Row

_MOST_SAME = 3
"""How often a row may be found as it was. Somebody may have written the very same value again; not each time."""

UNCOMPARABLE = (
    "the database gives back what it does not find there: its bytes are no text of the column's character set, the "
    "column (or one that says the partition) is padded, or a trigger skips the row. Store it anew, and run this again"
)


class Looks:
    """Reads rows again, and tells those apart that nobody has changed: to read them once more would change nothing."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._times: dict[Any, int] = {}

    def again(self, lost: Sequence[Row]) -> tuple[list[Row], list[Any]]:
        """Return the rows as they are now, and the primary keys of those that can't be compared."""
        before = {row.pk: row for row in lost}
        rows, same = [], []
        for row in self._column.at(list(before)):
            self._times[row.pk] = self._times.get(row.pk, 0) + 1 if row == before.get(row.pk) else 0
            if self._times[row.pk] < _MOST_SAME:
                rows.append(row)
            else:
                same.append(row.pk)
        return rows, same
