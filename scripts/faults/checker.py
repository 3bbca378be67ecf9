"""The independent checker: reads what is left after the faults, and says what is wrong.

Every check gives findings, one line each. No finding at all is the only good result. It shares
no code with the services but the contracts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowerbed.contracts.topology import STREAMS, durables
from scripts.faults.evidence import Evidence, PublishedEvent, StoredEvent

ENDED = ("completed", "failed", "cancelled", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One thing that must not happen, and every time that it did."""

    name: str
    findings: Sequence[str]


def check(evidence: Evidence) -> list[Column]:
    """Every column of the table; all must be empty."""
    checks = {
        "accepted updates lost": updates_lost,
        "counted twice": counted_twice,
        "trained twice": trained_twice,
        "events lost": events_lost,
        "out of order": out_of_order,
        "dead letters": dead_letters,
        "read model differs": read_models_differ,
        "without a deadline": without_deadline,
        "not ended": not_ended,
        "other bytes": other_bytes,
    }
    return [
        Column(name=name, findings=sorted(set(find(evidence)))) for name, find in checks.items()
    ]


def updates_lost(evidence: Evidence) -> Iterator[str]:
    """Accepted, and not in the aggregate of its exchange; or its object is gone or another."""
    folded = _folded(evidence)
    completed = {
        event.federation_id
        for event in evidence.stores["orchestrator"]
        if event.type == "fl.federation.completed"
    }
    for event in _of_type(evidence.stores["aggregator"], "fl.update.accepted"):
        key = (event.data["client_id"], event.data["place"])
        if event.stream in folded:
            if key not in folded[event.stream]:
                yield f"{event.stream}: accepted of {key[0]}, not in the aggregate"
        elif event.federation_id in completed and not _failed(evidence, event.stream):
            yield f"{event.stream}: accepted of {key[0]}, the exchange never ended"
        yield from _object_trouble(evidence, event, event.data["artifact"])
    for event in evidence.stores["artifact"]:
        if event.type == "fl.artifact.recorded":
            yield from _object_trouble(evidence, event, event.data["artifact"])


def counted_twice(evidence: Evidence) -> Iterator[str]:
    """One answer of a client in two aggregates, twice in one, or accepted twice."""
    aggregates = list(_of_type(evidence.stores["aggregator"], "fl.aggregate.completed"))
    for stream, n in Counter(event.stream for event in aggregates).items():
        if n > 1:
            yield f"{stream}: {n} aggregates"
    for event in aggregates:
        clients = Counter((u["client_id"], u["place"]) for u in event.data["updates"])
        yield from (f"{event.stream}: {who} {n} times" for who, n in clients.items() if n > 1)
    folded = _folded(evidence)
    answers: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for event in _of_type(evidence.stores["aggregator"], "fl.update.accepted"):
        work = event.data["work_id"]
        accepted[f"{event.stream}: {work}"] += 1
        if (event.data["client_id"], event.data["place"]) in folded.get(event.stream, ()):
            answers[work] += 1
    yield from (f"{work} accepted {n} times" for work, n in accepted.items() if n > 1)
    yield from (f"{work} in {n} aggregates" for work, n in answers.items() if n > 1)


def trained_twice(evidence: Evidence) -> Iterator[str]:
    """One piece of work that a site's worker finished more than once."""
    finished = Counter(
        (run.site, run.work) for run in evidence.runs if run.is_finished and run.exchange == "train"
    )
    yield from (f"{site}: work {work[:12]} {n} times" for (site, work), n in finished.items()
                if n > 1)  # fmt: skip


def events_lost(evidence: Evidence) -> Iterator[str]:
    """Recorded by its owner, and missing (or another) where it should have arrived."""
    for stream in STREAMS:
        owned = evidence.stores[stream.owner]
        ids = {(event.stream, event.version): event.id for event in owned}
        for name, version in _holes(owned):
            yield f"{stream.owner}: {name} has no version {version}"
        published = evidence.jetstreams[stream.name]
        yield from _differences(stream.name, ids, published)
        copies = [e for e in evidence.stores["gateway"] if e.type in stream.types]
        yield from _differences("gateway", ids, copies)
    yield from _cursor_trouble(evidence)


def out_of_order(evidence: Evidence) -> Iterator[str]:
    """Within one event stream, a later version before an earlier one, or the same one twice."""
    places: dict[str, Sequence[StoredEvent | PublishedEvent]] = {
        **evidence.stores, **evidence.jetstreams,
    }  # fmt: skip
    for where, events in places.items():
        highest: dict[str, int] = {}
        for event in sorted(events, key=lambda one: one.place):
            before = highest.get(event.stream, 0)
            if event.version <= before:
                yield f"{where}: {event.stream} version {event.version} after {before}"
            highest[event.stream] = max(before, event.version)


def dead_letters(evidence: Evidence) -> Iterator[str]:
    """An event that a consumer could not handle."""
    yield from (f"{service}: {n}" for service, n in evidence.dead_letters.items() if n)


def read_models_differ(evidence: Evidence) -> Iterator[str]:
    """A live table that is not what its events say."""
    for diff in evidence.tables:
        for row in diff.only_live:
            yield f"{diff.service}.{diff.table}: only live: {row}"
        for row in diff.only_replayed:
            yield f"{diff.service}.{diff.table}: only in a replay: {row}"


def without_deadline(evidence: Evidence) -> Iterator[str]:
    """Open, and nobody will look at it again by himself: at the end, or once meanwhile."""
    yield from (f"{federation}" for federation in _open(evidence) - evidence.deadlines)
    yield from (f"{federation} (meanwhile)" for federation in evidence.gaps)


def not_ended(evidence: Evidence) -> Iterator[str]:
    yield from _open(evidence)


def other_bytes(evidence: Evidence) -> Iterator[str]:
    """Completed with another checkpoint than the undisturbed run, or not completed."""
    final = {
        event.federation_id: event.data["final"]["sha256"]
        for event in _of_type(evidence.stores["orchestrator"], "fl.federation.completed")
    }
    for federation, expected in evidence.expected.items():
        found = final.get(federation, "none")
        if found != expected:
            yield f"{federation}: {found[:12]}, undisturbed {expected[:12]}"


def _folded(evidence: Evidence) -> dict[str, set[tuple[str, int]]]:
    """By exchange stream, who is in its aggregate."""
    return {
        event.stream: {(u["client_id"], u["place"]) for u in event.data["updates"]}
        for event in _of_type(evidence.stores["aggregator"], "fl.aggregate.completed")
    }


def _failed(evidence: Evidence, stream: str) -> bool:
    return any(
        event.stream == stream
        for event in _of_type(evidence.stores["aggregator"], "fl.aggregate.failed")
    )


def _object_trouble(evidence: Evidence, event: StoredEvent, artifact: Any) -> Iterator[str]:
    if artifact is None:
        return
    found = evidence.objects.get(artifact["uri"])
    if found != artifact["sha256"]:
        state = "is gone" if found is None else f"is {found[:12]}"
        yield f"{event.stream}: object {artifact['sha256'][:12]} {state}"


def _differences(
    where: str,
    owned: dict[tuple[str, int], str],
    there: Iterable[StoredEvent | PublishedEvent],
) -> Iterator[str]:
    found = {(event.stream, event.version): event.id for event in there}
    for place, identity in owned.items():
        if place not in found:
            yield f"{where}: {place[0]} version {place[1]} is missing"
        elif found[place] != identity:
            yield f"{where}: {place[0]} version {place[1]} is another event"
    for place in found.keys() - owned.keys():
        yield f"{where}: {place[0]} version {place[1]} is unknown to its owner"


def _holes(events: Iterable[StoredEvent]) -> Iterator[tuple[str, int]]:
    versions: dict[str, set[int]] = defaultdict(set)
    for event in events:
        versions[event.stream].add(event.version)
    for name, there in versions.items():
        yield from ((name, one) for one in range(1, max(there) + 1) if one not in there)


def _cursor_trouble(evidence: Evidence) -> Iterator[str]:
    """A consumer stands at the last version that it wants of each stream, or it missed one."""
    owners = {stream.name: stream.owner for stream in STREAMS}
    for service, cursors in evidence.cursors.items():
        for durable in durables(service):
            wanted: dict[str, int] = {}
            for event in evidence.stores[owners[durable.stream]]:
                if event.type in durable.types:
                    wanted[event.stream] = max(event.version, wanted.get(event.stream, 0))
            for name, version in wanted.items():
                if (at := cursors.get(name, 0)) != version:
                    yield f"{service} applied {name} up to {at} of {version}"


def _open(evidence: Evidence) -> set[str]:
    ended = {f"fl.federation.{outcome}" for outcome in ENDED}
    events = evidence.stores["orchestrator"]
    known = {e.federation_id for e in events if e.type == "fl.federation.created"}
    return known - {e.federation_id for e in events if e.type in ended}


def _of_type(events: Iterable[StoredEvent], event_type: str) -> Iterator[StoredEvent]:
    return (event for event in events if event.type == event_type)
