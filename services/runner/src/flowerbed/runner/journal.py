"""The journal: every piece of finished work, by what was asked and not by who asked or when.

A row is on disk before the update leaves the site. The same work ordered again, in another attempt
or under another lease epoch, is answered from here.

`runs` counts what the worker really did. A run that was cut short and goes on is the same run:
    resumed        how often it went on from a checkpoint, or from a result that nobody had read
    resumed_from   the epochs that were done when it last did
    restarted      how often it began anew, because nothing was kept
Work was done twice if two runs of it have a `finished_at`.
"""

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import asdict, astuple, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flowerbed.contracts.signed import WorkOrder
from flowerbed.runner import clock
from flowerbed.runner.memories import APP_STATE, LEFT_OUT, MEMORIES, Memory

KEPT_RESULTS = 4
"""Result files that are kept for a lease: enough for any order that can still be repeated."""
KEPT_LEASES = 32
KEPT_FOR = timedelta(days=1)
"""Of so many leases that are not held now the newest result file is kept, for so long: an agent
that was started again, or was silent for too long, holds none of its leases at first, and work of
theirs may be ordered again."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS finished (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    work TEXT NOT NULL UNIQUE,
    lease_id TEXT NOT NULL,
    federation_id TEXT NOT NULL,
    round_number INTEGER NOT NULL,
    exchange TEXT NOT NULL,
    base_sha256 TEXT NOT NULL,
    seed INTEGER NOT NULL,
    config_hash TEXT NOT NULL,
    code_hash TEXT NOT NULL,
    dataset_sha256 TEXT NOT NULL,
    sha256 TEXT,
    size INTEGER NOT NULL,
    n_examples INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    train_seconds REAL NOT NULL,
    finished_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    work TEXT NOT NULL,
    lease_id TEXT NOT NULL,
    exchange TEXT NOT NULL,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    epochs INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS runs_by_lease ON runs (lease_id);
"""

_LATER_COLUMNS = {
    "runs": {
        "resumed": "INTEGER NOT NULL DEFAULT 0",
        "resumed_from": "INTEGER",
        "restarted": "INTEGER NOT NULL DEFAULT 0",
    },
    "finished": {"measured": "TEXT NOT NULL DEFAULT '{}'"},
}
"""By table: a journal that was made by an earlier release gets them when it is opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkKey:
    """Everything that decides a result's bytes."""

    federation_id: str
    round_number: int
    exchange: str
    base_sha256: str
    seed: int
    config_hash: str
    code_hash: str
    dataset_sha256: str

    @classmethod
    def of(cls, order: WorkOrder) -> "WorkKey":
        config = json.dumps([order.message_type, order.config], sort_keys=True)
        return cls(
            federation_id=order.federation_id,
            round_number=order.round_number,
            exchange=order.exchange,
            base_sha256=order.base.sha256,
            seed=order.seed,
            config_hash=hashlib.sha256(config.encode()).hexdigest(),
            code_hash=order.code_hash,
            dataset_sha256=order.dataset_sha256,
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(astuple(self)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen beside the run; None is not measured, and `joules_reason` why."""

    download_seconds: float | None = None
    joules: float | None = None
    joules_reason: str | None = None
    form_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What the app gave. `sha256` and `size` are of the result file; None where there is none.

    `state_sha256`: of what the app remembers from then on. `left_sha256`: of what the update's form
    has left out.
    """

    sha256: str | None
    size: int
    n_examples: int
    metrics: dict[str, float]
    train_seconds: float
    state_sha256: str | None = None
    left_sha256: str | None = None
    measured: Measured = Measured()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`is_new`: it was not begun by anyone who was cut short."""

    number: int
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the work of one lease has used so far. `last_examples`: None before the first."""

    epochs: int = 0
    tokens: int = 0
    last_tokens_per_epoch: float | None = None


class Journal:
    """Opened when it is first needed: a disk that is full at first may have room later.

    Every method may raise sqlite3.Error; then nothing has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = _open(self._path)
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def find(self, work: str) -> Finished | None:
        """The result of the work with this key's digest."""
        row = self._connection.execute(
            "SELECT sha256, size, n_examples, metrics, train_seconds, measured FROM finished"
            " WHERE work = ?",
            (work,),
        ).fetchone()
        if row is None:
            return None
        sha256, size, n_examples, metrics, train_seconds, measured = row
        return Finished(
            sha256=sha256,
            size=size,
            n_examples=n_examples,
            metrics=json.loads(metrics),
            train_seconds=train_seconds,
            measured=Measured(**json.loads(measured)),
        )

    def start_run(self, key: WorkKey, lease_id: str) -> Run:
        """A worker is about to do this work: a new run, or the one that was cut short."""
        open_run = self._connection.execute(
            "SELECT id FROM runs WHERE work = ? AND finished_at IS NULL ORDER BY id DESC LIMIT 1",
            (key.digest,),
        ).fetchone()
        if open_run is not None:
            return Run(number=int(open_run[0]), is_new=False)
        cursor = self._connection.execute(
            "INSERT INTO runs (work, lease_id, exchange, started_at) VALUES (?, ?, ?, ?)",
            (key.digest, lease_id, key.exchange, _now()),
        )
        assert cursor.lastrowid is not None
        return Run(number=cursor.lastrowid, is_new=True)

    def go_on(self, run: Run, epochs: int | None) -> None:
        """The run goes on with so many epochs done; None: from the beginning."""
        if epochs is None:
            change, values = "restarted = restarted + 1", list[int]()
        else:
            change, values = "resumed = resumed + 1, resumed_from = ?", [epochs]
        self._connection.execute(f"UPDATE runs SET {change} WHERE id = ?", (*values, run.number))

    def finish_run(self, run: Run, *, epochs: int, tokens: int) -> None:
        """The run came to its end, whatever becomes of what it gave."""
        self._connection.execute(
            "UPDATE runs SET finished_at = ?, epochs = ?, tokens = ? WHERE id = ?",
            (_now(), epochs, tokens, run.number),
        )

    def record(
        self, key: WorkKey, finished: Finished, *, run: Run, epochs: int, tokens: int
    ) -> None:
        """Keep the result, what is to be remembered, and the run's end, in one transaction.

        On disk when this returns. Work that is done again, since its result was lost, leaves what
        is remembered as it is: that work is in it already.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if self.find(key.digest) is None:
                what = (key.digest, run.number, _now())
                APP_STATE.keep(self._connection, finished.state_sha256, *what)
                if key.exchange == "train":
                    LEFT_OUT.keep(self._connection, finished.left_sha256, *what)
            self.finish_run(run, epochs=epochs, tokens=tokens)
            self._connection.execute(
                "INSERT OR REPLACE INTO finished (work, lease_id, federation_id, round_number,"
                " exchange, base_sha256, seed, config_hash, code_hash, dataset_sha256, sha256,"
                " size, n_examples, metrics, train_seconds, measured, finished_at)"
                " SELECT ?, lease_id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
                " FROM runs WHERE id = ?",
                (
                    key.digest, *astuple(key), finished.sha256, finished.size,
                    finished.n_examples, json.dumps(finished.metrics), finished.train_seconds,
                    json.dumps(asdict(finished.measured)), _now(), run.number,
                ),
            )  # fmt: skip

    def memory_of(self, memory: Memory, lease_id: str, before: str | None = None) -> str | None:
        """The sha256 of what is remembered in this lease's federation.

        With `before`, None if that work is in it already.
        """
        return memory.of(self._connection, lease_id, before)

    def memory_after(self, memory: Memory, work: str) -> str | None:
        """The same, if this work was the last that is remembered."""
        return memory.after(self._connection, work)

    def needed_memories(self) -> set[str]:
        return {one for memory in MEMORIES for one in memory.all(self._connection)}

    def spent(self, lease_id: str) -> Spent:
        epochs, tokens = self._connection.execute(
            "SELECT coalesce(sum(epochs), 0), coalesce(sum(tokens), 0) FROM runs"
            " WHERE lease_id = ? AND finished_at IS NOT NULL",
            (lease_id,),
        ).fetchone()
        last = self._connection.execute(
            "SELECT tokens * 1.0 / epochs FROM runs"
            " WHERE lease_id = ? AND finished_at IS NOT NULL AND epochs > 0"
            " ORDER BY id DESC LIMIT 1",
            (lease_id,),
        ).fetchone()
        return Spent(epochs=epochs, tokens=tokens, last_tokens_per_epoch=last[0] if last else None)

    def counts(self) -> dict[str, int]:
        """How often the worker has finished each kind of work, ever."""
        rows = self._connection.execute(
            "SELECT exchange, count(*) FROM runs WHERE finished_at IS NOT NULL GROUP BY exchange"
        )
        return {str(exchange): int(count) for exchange, count in rows}

    def needed_results(self, held: Collection[str]) -> set[str]:
        """Digests of result files to keep: the newest of each held lease, and of those left."""
        rows: Iterable[tuple[str, str, str]] = self._connection.execute(
            "SELECT lease_id, sha256, finished_at FROM finished WHERE sha256 IS NOT NULL"
            " ORDER BY seq DESC"
        )
        oldest = _text(clock.utc() - KEPT_FOR)
        kept: dict[str, list[str]] = {}
        left: dict[str, str] = {}
        for lease_id, sha256, finished_at in rows:
            if lease_id in held:
                group = kept.setdefault(lease_id, [])
                if len(group) < KEPT_RESULTS:
                    group.append(sha256)
            elif len(left) < KEPT_LEASES and finished_at >= oldest:
                left.setdefault(lease_id, sha256)
        return {*left.values(), *(sha256 for group in kept.values() for sha256 in group)}


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.executescript(_SCHEMA + "".join(memory.schema for memory in MEMORIES))
        for table, columns in _LATER_COLUMNS.items():
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for column in columns.keys() - there:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {columns[column]}")
    except BaseException:
        connection.close()
        raise
    return connection


def _now() -> str:
    return _text(clock.utc())


def _text(moment: datetime) -> str:
    """Texts of this form sort as the moments do."""
    return moment.isoformat(timespec="milliseconds")
