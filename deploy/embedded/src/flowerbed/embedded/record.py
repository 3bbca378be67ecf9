"""`run/stack.json`: what runs where. The supervisor writes it, everybody else reads it."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.layout import Layout, write_private_json

StackState = Literal["starting", "running", "stopping", "stopped", "failed"]
ComponentState = Literal["waiting", "starting", "ready", "restarting", "stopped"]
Kind = Literal["server", "service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRecord:
    """One process of the stack, as the supervisor last saw it."""

    name: str
    kind: Kind
    state: ComponentState
    address: str
    process: ProcessId | None = None
    since: str | None = None
    """When this process started (UTC, ISO 8601)."""
    restarts: int = 0
    stop_signal: str = "SIGTERM"
    stop_seconds: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRecord:
    state: StackState
    supervisor: ProcessId
    since: str
    components: tuple[ComponentRecord, ...] = ()
    keeper: ProcessId | None = None
    """Who starts another supervisor when this one is killed."""

    def is_supervised(self) -> bool:
        return self.supervisor.is_alive()

    def is_kept(self) -> bool:
        return self.keeper is not None and self.keeper.is_alive()


def write_record(layout: Layout, record: StackRecord) -> None:
    write_private_json(layout.record, asdict(record), lasting=False)


def read_record(layout: Layout) -> StackRecord | None:
    """None if no stack was ever started there."""
    try:
        content = json.loads(layout.record.read_text())
    except FileNotFoundError:
        return None
    components = tuple(
        ComponentRecord(
            **{**item, "process": ProcessId(**item["process"]) if item["process"] else None}
        )
        for item in content.pop("components")
    )
    supervisor = ProcessId(**content.pop("supervisor"))
    kept = content.pop("keeper", None)
    keeper = None if kept is None else ProcessId(**kept)
    return StackRecord(supervisor=supervisor, components=components, keeper=keeper, **content)
