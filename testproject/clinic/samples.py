"""The bundled sample: fictional patients, with FHIR-like records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).resolve().parent / "sample"


def load_samples() -> list[dict[str, Any]]:
    """Return the patients, each a dict with ``name``, ``ssn`` and ``record``."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(SAMPLE.glob("*.json"))]
