"""Checkpoints in S3 by sha256, lineage, promotion."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
