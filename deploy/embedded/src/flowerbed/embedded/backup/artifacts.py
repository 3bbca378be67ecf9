"""Which objects in S3 the recorded facts name: the list of artifacts of a backup.

Of updates, only those are listed that may still count: their federation goes on, and no closed
exchange has answered them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowerbed.embedded.databases import Session

_OWNERS = ("orchestrator", "lease", "aggregator", "artifact")
"""The gateway has copies of their facts."""

_ENDS = {f"fl.federation.{how}" for how in ("completed", "failed", "cancelled", "rejected")}
_CLOSES = {"fl.aggregate.completed", "fl.aggregate.failed"}
_ANSWERS = {f"fl.update.{how}" for how in ("accepted", "rejected", "quarantined")}
_READ = "SELECT type, stream, meta ->> 'correlation_id' AS federation, data FROM events"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Artifact:
    uri: str
    sha256: str
    size: int


@dataclass(slots=True)
class Seen:
    """What a history has told so far, event by event."""

    kept: set[Artifact] = field(default_factory=set)
    submitted: list[tuple[str, str, Artifact]] = field(default_factory=list)
    answered: dict[str, set[str]] = field(default_factory=dict)
    """Streams of the exchanges that answered a piece of work."""
    closed: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    bases: dict[str, str] = field(default_factory=dict)
    """By federation, the URI of the base that its author names."""
    based: set[str] = field(default_factory=set)
    """Federations whose base was recorded since, with its digest."""

    def see(self, event_type: str, stream: str, federation: str, data: dict[str, Any]) -> None:
        if event_type in _ENDS:
            self.ended.add(federation)
        if event_type in _CLOSES:
            self.closed.add(stream)
        if event_type == "fl.federation.created":
            self.bases[federation] = data["spec"]["spec"]["model_ref"]["uri"]
        if event_type == "fl.artifact.recorded" and data["kind"] == "base":
            self.based.add(federation)
        if event_type in _ANSWERS:
            self.answered.setdefault(data["work_id"], set()).add(stream)
        elif event_type == "fl.update.submitted":
            for artifact in _named_in(data):
                self.submitted.append((federation, data["work_id"], artifact))
        else:
            self.kept.update(_named_in(data))

    def updates(self) -> Iterator[Artifact]:
        for federation, work_id, artifact in self.submitted:
            is_settled = bool(self.answered.get(work_id, set()) & self.closed)
            if federation not in self.ended and not is_settled:
                yield artifact

    def awaited_bases(self) -> set[str]:
        """URIs in S3 that a federation is going to read, and nobody has read yet."""
        return {
            uri
            for federation, uri in self.bases.items()
            if federation not in self.ended | self.based and uri.startswith("s3://")
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`bases`: URIs of objects whose digest no fact says yet."""

    artifacts: frozenset[Artifact]
    bases: frozenset[str]


async def find_artifacts(databases: Mapping[str, Session], *, with_updates: bool = False) -> Named:
    """`with_updates`: every update, so that old rounds can be folded again."""
    seen = Seen()
    for service in _OWNERS:
        async for row in databases[service].cursor(_READ, prefetch=500):
            data = json.loads(row["data"])
            seen.see(row["type"], row["stream"], row["federation"], data)
    updates = (one for _, _, one in seen.submitted) if with_updates else seen.updates()
    return Named(
        artifacts=frozenset(seen.kept | set(updates)), bases=frozenset(seen.awaited_bases())
    )


def _named_in(value: Any) -> Iterator[Artifact]:
    """Every reference to an object, however deep."""
    if isinstance(value, list):
        for one in value:
            yield from _named_in(one)
    elif isinstance(value, dict):
        if value.keys() >= {"uri", "sha256", "size"} and str(value["uri"]).startswith("s3://"):
            yield Artifact(uri=value["uri"], sha256=value["sha256"], size=value["size"])
        for one in value.values():
            yield from _named_in(one)
