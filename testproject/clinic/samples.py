"""The bundled sample: fictional patients of two clinics, with FHIR-like records."""

from __future__ import annotations

import json
from itertools import cycle
from pathlib import Path
from typing import Any

CLINICS = ("North", "South")

SAMPLE = Path(__file__).resolve().parent / "sample"


def load_samples() -> list[dict[str, Any]]:
    """Return the patients, each a dict with ``name``, ``ssn`` and ``record``."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SAMPLE.glob("*.json"))]


def load_samples_by_clinic() -> list[tuple[str, dict[str, Any]]]:
    """Return each patient with the name of the clinic that has them."""
    return list(zip(cycle(CLINICS), load_samples(), strict=False))
