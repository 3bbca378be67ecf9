"""What a lease's work leaves for the work after it, by digest: each kind in a table of the journal.

It counts with the work that gave it, in the journal's own transaction, and once.
"""

import sqlite3
from dataclasses import dataclass

KEPT = 32
"""Leases whose memories are kept: the newest."""


@dataclass(frozen=True, slots=True)
class Memory:
    table: str
    words: str

    @property
    def schema(self) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {self.table} (lease_id TEXT PRIMARY KEY,"
            " sha256 TEXT NOT NULL, work TEXT NOT NULL, updated_at TEXT NOT NULL);"
        )

    def keep(
        self, journal: sqlite3.Connection, sha256: str | None, work: str, run: int, now: str
    ) -> None:
        """Keep it for the lease of that run; None: there is nothing any more."""
        if sha256 is None:
            journal.execute(
                f"DELETE FROM {self.table}"
                " WHERE lease_id = (SELECT lease_id FROM runs WHERE id = ?)",
                (run,),
            )
            return
        journal.execute(
            f"INSERT OR REPLACE INTO {self.table} (lease_id, sha256, work, updated_at)"
            " SELECT lease_id, ?, ?, ? FROM runs WHERE id = ?",
            (sha256, work, now, run),
        )
        journal.execute(
            f"DELETE FROM {self.table} WHERE lease_id NOT IN"
            f" (SELECT lease_id FROM {self.table} ORDER BY updated_at DESC LIMIT ?)",
            (KEPT,),
        )

    def of(self, journal: sqlite3.Connection, lease_id: str, before: str | None) -> str | None:
        row = journal.execute(
            f"SELECT sha256, work FROM {self.table} WHERE lease_id = ?", (lease_id,)
        ).fetchone()
        return None if row is None or row[1] == before else str(row[0])

    def after(self, journal: sqlite3.Connection, work: str) -> str | None:
        row = journal.execute(f"SELECT sha256 FROM {self.table} WHERE work = ?", (work,)).fetchone()
        return None if row is None else str(row[0])

    def all(self, journal: sqlite3.Connection) -> set[str]:
        return {str(row[0]) for row in journal.execute(f"SELECT sha256 FROM {self.table}")}


APP_STATE = Memory("app_states", "what the app remembered")
"""What the app remembers (`Context.state`)."""
LEFT_OUT = Memory("left_out", "what the updates had left out")
"""What the form of the lease's updates has left out (error feedback)."""
MEMORIES = (APP_STATE, LEFT_OUT)
