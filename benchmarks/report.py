"""Results as a page of tables and as plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.environments import HERE

DOCS = HERE.parent / "docs" / "explanation"
NAMES = {
    "plain": "plain TextField",
    "same_text": "the same text in a plain column",
    "same_bytes": "the same bytes in a plain column",
    "bytes_200": "200 bytes, not encrypted (floor)",
    "envelope_field": "bare envelope behind a field (floor)",
    "raw_aes_gcm": "raw AES-256-GCM (floor)",
    "envelope_floor": "bare envelope (floor)",
    "asherah_json": "**django-asherah, JSON**",
    "asherah_compact": "**django-asherah, compact**",
    "asherah_json_native": "**django-asherah[native], JSON**",
    "asherah_compact_native": "**django-asherah[native], compact**",
    "rust_sdk": "official Rust SDK behind a field",
    "django_field_encryption": "django-field-encryption",
    "django_tink_fields": "django-tink-fields",
    "django_fernet_encrypted_fields": "django-fernet-encrypted-fields",
    "django_cryptography_5": "django-cryptography-5",
}
_HOW = (
    "Contenders take turns, each in its own process and environment; the lowest of several rounds counts. "
    "Quote the ratios: the absolute times come from a shared machine."
)
SIZES = {"100": "100 B", "1024": "1 KiB", "65536": "64 KiB", "1048576": "1 MiB"}


def write(results: Mapping[str, Any]) -> None:
    """Write the page and the plots into the documentation."""
    (DOCS / "performance-results.md").write_text(page(results), encoding="utf-8")
    _plot(results)


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    parts = [
        "# Benchmark results",
        f"`make bench` wrote this page. {machine}. {_HOW}",
    ]
    for name, write_part in _PARTS.items():
        if name in results:
            parts += write_part(results[name])
    return "\n\n".join(parts) + "\n"


def _values(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## One value"
    yield (
        "Microseconds to encrypt / decrypt one value through the model field, from the instance's attribute to the "
        "parameter of the statement and back. In brackets, as a multiple of the bare envelope: Asherah's two AES-GCM "
        "calls, one random draw and the JSON, and nothing else."
    )
    names = [name for name in NAMES if name in found["100"]["encrypt"]]
    rows = [[NAMES[name], *(_pair(found[size], name) for size in SIZES)] for name in names]
    yield _table(["", *SIZES.values()], rows)
    yield "![Microseconds for a value of 100 bytes](performance-values.svg)"


def _pair(found: Mapping[str, Any], name: str) -> str:
    times = [found[direction][name] for direction in ("encrypt", "decrypt")]
    floors = [found[direction]["envelope_floor"] for direction in ("encrypt", "decrypt")]
    text = " / ".join(f"{time:,.1f}" if time < 100 else f"{time:,.0f}" for time in times)
    if name in ("plain", "raw_aes_gcm", "envelope_floor"):
        return text
    return f"{text} ({' / '.join(f'{time / floor:.2f}' for time, floor in zip(times, floors, strict=True))})"


def _tables(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Whole tables"
    for model, columns in (("one", "one encrypted column"), ("five", "five encrypted columns")):
        rows_in_it = next(iter(found.values()))[model]["rows"]
        yield (
            f"{rows_in_it:,} rows with {columns} of 100 bytes: `bulk_create` / reading every row, as a multiple of a "
            "plain TextField."
        )
        names = [name for name in NAMES if name in next(iter(found.values()))[model]["create"]]
        rows = [[NAMES[name], *(_against_plain(at[model], name) for at in found.values())] for name in names]
        yield _table(["", *found], rows)
    yield "Bytes that a value of 100 bytes takes in the database:"
    stored = next(iter(found.values()))["bytes"]
    yield _table(["", "bytes"], [[NAMES[name], f"{stored[name]:.0f}"] for name in NAMES if name in stored])
    yield "![Whole tables against a plain TextField](performance-tables.svg)"


def _against_plain(found: Mapping[str, Any], name: str) -> str:
    return " / ".join(f"{found[way][name] / found[way]['plain']:.2f}" for way in ("create", "iterate"))


def _rows(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Rows that are looked at, and rows that are not"
    yield (
        "Every row of tables with one and five encrypted columns of 100 bytes. *Not looked at*: no value is read, "
        "against the same bytes in a plain column. *All read*: every value is, against this package as it was before "
        "values were opened lazily. *One changed*: each row is loaded, one column is changed, and the row is saved; "
        "against the same."
    )
    header = ["", *(f"{name}, {model}" for name, at in found.items() for model in at)]
    for title, way, floor in (
        ("not looked at", "look", _same_bytes),
        ("all read", "iterate", _before),
        ("one changed", "touch", _before),
    ):
        rows = [
            [
                f"{NAMES[name]}, {title}",
                *(f"{of[way][name] / of[way][floor(name)]:.2f}" for at in found.values() for of in at.values()),
            ]
            for name in _LAZY
        ]
        yield _table(header, rows)


_LAZY = ("asherah_json", "asherah_compact", "asherah_json_native", "asherah_compact_native")


def _same_bytes(name: str) -> str:
    return "same_bytes" if "compact" in name else "same_text"


def _before(name: str) -> str:
    return f"{name}_before"


def _start(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## From nothing to the first value"
    yield "Milliseconds that a whole process takes to start Django and read one value from SQLite."
    steps = list(next(iter(found.values())))
    yield _table(["", *found], [[step, *(f"{at[step] * 1000:.0f}" for at in found.values())] for step in steps])


def _partitions(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## One partition, and a thousand"
    yield "Seconds for 10,000 values of 100 bytes (in brackets: key table queries) by number of partitions."
    steps = [step for step in next(iter(next(iter(found.values())).values())) if not step.endswith(" queries")]
    header = ["", *(f"{name}, {count}" for name, at in found.items() for count in at)]
    rows = [
        [step, *(f"{of[step]:.2f} ({of[f'{step} queries']})" for at in found.values() for of in at.values())]
        for step in steps
    ]
    yield _table(header, rows)


def _new_partitions(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Ten thousand new partitions"
    yield "Seconds until each of 10,000 new partitions has a key; and what share of them all take if made together."
    ways = next(iter(found.values()))
    rows = [[way, *(f"{of[way]:.2f}" for of in found.values())] for way in ways]
    share = ["share", *(f"{of['together'] / of['one by one']:.3f}" for of in found.values())]
    yield _table(["", *found], [*rows, share])


def _lifecycle(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Re-encrypt and verify"
    rows_in_it = next(iter(found.values()))["rows"]
    yield (
        f"Rows per second over {rows_in_it:,} rows, including the command's start-up. The first line is the floor: "
        "what decrypting, encrypting and a bulk UPDATE alone cost, without anything that makes it safe. SQLite lets "
        "one process write at a time."
    )
    steps = [step for step in next(iter(found.values())) if step != "rows"]
    yield _table(["", *found], [[step, *(f"{at[step]:,.0f}" for at in found.values())] for step in steps])


def _memory(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Memory"
    yield "The most memory that `asherah_verify --data` holds, in MiB, by number of rows (SQLite)."
    yield _table(["rows", "MiB"], [[f"{int(rows):,}", f"{kib / 1024:.0f}"] for rows, kib in found.items()])


def _sharing(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Sharing data row keys"
    yield (
        "Microseconds of the bare envelope for a value of 100 bytes, with what django-asherah does (the first line) "
        "and with what it does [not](performance.md#tried-and-dropped)."
    )
    for direction, ways in found.items():
        yield _table([direction, "µs"], [[way, f"{time:.1f}"] for way, time in ways.items()])


_PARTS = {
    "values": _values,
    "sharing": _sharing,
    "tables": _tables,
    "rows": _rows,
    "start": _start,
    "partitions": _partitions,
    "new partitions": _new_partitions,
    "lifecycle": _lifecycle,
    "memory": _memory,
}


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plot(results: Mapping[str, Any]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "django-asherah"
    if "values" in results:
        of = results["values"]["100"]
        _bars(of["encrypt"], of["decrypt"], ("encrypt", "decrypt"), "µs for 100 bytes", DOCS / "performance-values.svg")
    if "tables" in results:
        of = results["tables"]["SQLite"]["one"]
        ratios = [{name: of[way][name] / of[way]["plain"] for name in of[way]} for way in ("create", "iterate")]
        label = "multiple of a plain TextField, SQLite"
        _bars(*ratios, ("bulk_create", "iterate"), label, DOCS / "performance-tables.svg")


def _bars(
    first: Mapping[str, float], second: Mapping[str, float], labels: tuple[str, str], unit: str, path: Path
) -> None:
    from matplotlib import pyplot

    names = [name for name in NAMES if name in first]
    places = range(len(names))
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(names) + 1))
    for offset, found, label, colour in ((-0.2, first, labels[0], "#2563eb"), (0.2, second, labels[1], "#f59e0b")):
        bars = axes.barh([place + offset for place in places], [found[name] for name in names], 0.38, color=colour)
        bars.set_label(label)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(list(places), [NAMES[name].strip("*") for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
