"""Checkpoints in S3 by sha256, lineage, promotion."""
