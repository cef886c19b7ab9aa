"""The way from another library's field to one of ours: every value proven, copied and compared."""

from django_asherah.copying.column_copy import ColumnCopy

__all__ = ["ColumnCopy"]
