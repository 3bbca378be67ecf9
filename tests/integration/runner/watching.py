"""What a test can see of an agent and its worker from outside."""

import sqlite3
from pathlib import Path

import psutil

from flowerbed.runner.state import StateDir
from tests.integration.runner.control_plane import wait_for


def finished_runs(state: StateDir) -> list[int]:
    """How often each piece of work was trained to its end."""
    with sqlite3.connect(f"file:{state.journal}?mode=ro", uri=True) as journal:
        rows = journal.execute(
            "SELECT count(*) FROM runs WHERE finished_at IS NOT NULL GROUP BY work ORDER BY min(id)"
        )
        return [count for (count,) in rows]


def resumptions(state: StateDir) -> list[tuple[int, int | None, int]]:
    """Of each run: how often it went on, from where, and how often it began anew."""
    with sqlite3.connect(f"file:{state.journal}?mode=ro", uri=True) as journal:
        return journal.execute(
            "SELECT resumed, resumed_from, restarted FROM runs ORDER BY id"
        ).fetchall()


def training_process(block: Path, other_than: psutil.Process | None = None) -> psutil.Process:
    """The worker that waits in the app, with `behave: block`, until `block` is gone."""
    file = block.with_suffix(".pid")

    def pid() -> int | None:
        text = file.read_text() if file.exists() else ""
        return int(text) if text and (other_than is None or int(text) != other_than.pid) else None

    return psutil.Process(wait_for(pid, "the training"))


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
