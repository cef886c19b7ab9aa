"""The page that tells how to leave another library: what its tables say, and its code."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tests.other_libraries import hyperscale
from tests.test_docs import DOCS, blocks

PAGE = DOCS / "how-to" / "migrate-from-another-library.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _tables() -> list[list[list[str]]]:
    """Return the cells of every table, without its head and its backticks."""
    tables = re.findall(r"^\|(?:---\|)+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = [table.replace("`", "").splitlines() for table in tables]
    return [[[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines] for lines in rows]


@dataclass(frozen=True, slots=True)
class Library:
    """What the page says of one."""

    package: str
    release: str
    imports: str
    field: str
    tested_on: str
    cannot_decrypt: str
    keys: str
    column: str

    @property
    def keeps_empty(self) -> bool:
        """Whether it can tell an empty string from None."""
        return f"`{self.package}` stores an empty string as `NULL`" not in TEXT

    @property
    def error(self) -> str:
        """The error that the field raises for what it can't decrypt; an empty string if it gives that back."""
        return self.cannot_decrypt.removeprefix("raises ") if self.cannot_decrypt.startswith("raises ") else ""

    @property
    def is_here(self) -> bool:
        """Whether it could be installed beside this Django."""
        return find_spec(self.imports.split()[1].partition(".")[0]) is not None


sys.path.append(str(hyperscale.install()))
_LIBRARIES, REPLACED, _BEHAVIOURS, CHANCES = _tables()
LIBRARIES = [Library(*first, *second[1:]) for first, second in zip(_LIBRARIES, _BEHAVIOURS, strict=True)]
assert [first[0] for first in _LIBRARIES] == [second[0] for second in _BEHAVIOURS]
SECTIONS = re.findall("^### (.+)$", TEXT, re.MULTILINE)

MODEL, COPY, COMPARE, REPAIR, SWITCH = [code for _, code, _ in blocks(PAGE, "python")]
CANARY = '{17: "900-12-3456"}'
assert COPY.count(CANARY) == 1

# django-cryptography leaves settings of its own in Django's as they are when it is imported: not in those of a test.
for library in LIBRARIES:
    if library.is_here:
        exec(library.imports, {})


def model_for(library: Library) -> str:
    """Return the code of the page's model with the import and the field of a library."""
    (shown,) = [one for one in LIBRARIES if one.imports in MODEL]
    assert MODEL.count(shown.imports) == MODEL.count(f"ssn = {shown.field}") == 1
    return MODEL.replace(shown.imports, library.imports).replace(shown.field, library.field)


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run code of the page; return its names."""
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def shell(code: str, names: dict[str, Any]) -> Any:
    """Run a block that is for the shell, with ``names`` for what it imports; return what its last line gives."""
    *lines, last = ast.parse(code).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module([line for line in lines if not isinstance(line, ast.ImportFrom)], []), "", "exec"), names)
    return eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
