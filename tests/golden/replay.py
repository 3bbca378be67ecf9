"""Recorded streams, and what today's code makes of them."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flowerbed.aggregator.decider import exchange
from flowerbed.aggregator.journal import journal
from flowerbed.aggregator.quorum import Answers
from flowerbed.artifact.apps import app
from flowerbed.artifact.decider import lineage
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.event import Event
from flowerbed.events.codec import Codec
from flowerbed.events.decider import Decider
from flowerbed.lease.clients import client
from flowerbed.lease.leases import lease
from flowerbed.orchestrator.decider import federation

STREAMS = Path(__file__).parent / "streams"
DECIDERS: dict[str, Decider[Any, Any, Any]] = {
    "federation": federation,
    "client": client,
    "lease": lease,
    "exchange": exchange,
    "lineage": lineage,
    "app": app,
    "serverapp": journal,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A line of a recording: an event as it lies in a service's store, and decoded."""

    service: str
    stream: str
    version: int
    type: str
    schema_version: int
    tenant: str
    data: Mapping[str, Any]
    event: Event


def load(name: str) -> list[Stored]:
    codec = Codec(EVENTS)
    told = []
    for line in (STREAMS / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        event = codec.decode(row["type"], row["schema_version"], json.dumps(row["data"]))
        fields = {f.name: row[f.name] for f in dataclasses.fields(Stored) if f.name != "event"}
        told.append(Stored(**fields, event=event))
    return told


def by_stream(told: list[Stored]) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = {}
    for one in told:
        found.setdefault(one.stream, []).append(one)
    return found


def states(told: list[Stored]) -> dict[str, Any]:
    """Of each stream, the state at its end and before its last event."""
    found: dict[str, Any] = {}
    for stream, history in sorted(by_stream(told).items()):
        decider = DECIDERS[stream.split("-", 1)[0]]
        events = [one.event for one in history]
        found[stream] = {
            "version": history[-1].version,
            "before": plain(decider.replay(events[:-1])),
            "final": plain(decider.replay(events)),
        }
    return found


def plain(value: object) -> Any:
    """A state as JSON, with the shape's name."""
    match value:
        case Answers():  # by client, as the recordings have it: there was one answer a client then
            return {
                "shape": "Answers",
                "accepted": {one.client_id: plain(one) for one in value.accepted.values()},
                "refused": {one.client_id: one.code for one in value.refused.values()},
            }
        case BaseModel():
            return value.model_dump(mode="json")
        case dict():
            return {_name(key): plain(one) for key, one in value.items()}
        case set() | frozenset():
            return sorted(plain(one) for one in value)
        case list() | tuple():
            return [plain(one) for one in value]
        case datetime():
            return value.isoformat()
        case None | str() | int() | float():
            return value
        case _ if dataclasses.is_dataclass(value):
            fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"shape": type(value).__name__, **fields}
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")


def _name(key: object) -> str:
    return ".".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
