"""What the checker looks at, as plain data: copies of what each server and site holds.

Nothing here talks to anything: `gather.py` fills it, tests make it by hand and tamper with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """One row of a service's `events`; `place` is its position in that table."""

    place: int
    stream: str
    version: int
    id: str
    type: str
    federation_id: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEvent:
    """One message of a JetStream stream; `place` is its sequence there."""

    place: int
    stream: str
    version: int
    id: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A piece of work that a site's worker took up, from the site's journal.

    `n_again`: how often that run began anew, or went on from a checkpoint, after a death.
    """

    site: str
    work: str
    exchange: str
    is_finished: bool
    n_again: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDiff:
    """Rows of a live read model that a replay of the events does not give, and the reverse."""

    service: str
    table: str
    only_live: Sequence[str] = ()
    only_replayed: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything, taken when all is quiet.

    `stores`: by service, in the order of the table. `jetstreams`: by JetStream stream.
    `cursors`: by service, the last version applied of each event stream.
    `deadlines`: federations that the orchestrator will look at again by itself.
    `objects`: by uri, the sha256 of the bytes in S3; None where there is no object.
    `expected`: by federation, the sha256 that an undisturbed run of the same spec gave.
    `gaps`: federations once seen open and without a deadline while the faults went on.
    """

    stores: Mapping[str, Sequence[StoredEvent]]
    jetstreams: Mapping[str, Sequence[PublishedEvent]]
    cursors: Mapping[str, Mapping[str, int]]
    deadlines: frozenset[str]
    objects: Mapping[str, str | None]
    runs: Sequence[Run] = ()
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    tables: Sequence[TableDiff] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    gaps: frozenset[str] = frozenset()
