"""The migrations of the app, and one that squashes the first three."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[2] / "migrations"))
