"""Who may work: enrolment, leases, signed work, heartbeats. The only door for clients."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
