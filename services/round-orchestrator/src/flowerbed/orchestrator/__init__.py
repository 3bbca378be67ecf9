"""The brain: federations and rounds, their deadlines and attempts."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
