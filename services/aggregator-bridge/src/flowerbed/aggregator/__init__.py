"""Flower's side of the server: strategies, screening, the fold."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
