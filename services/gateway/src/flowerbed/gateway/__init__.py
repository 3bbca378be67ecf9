"""The user's door: HTTP status and commands over read models."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
