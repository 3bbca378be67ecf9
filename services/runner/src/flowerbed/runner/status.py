"""What the agent says of itself: one file, replaced whole at every change. No port is opened."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict

from flowerbed.runner import clock
from flowerbed.runner.state import StateDir, write_private

logger = logging.getLogger(__name__)

Phase: TypeAlias = Literal[
    "starting", "polling", "not-reachable", "not-admitted", "stopping", "stopped"
]


class LeaseStatus(BaseModel):
    lease_id: str
    federation_id: str
    epoch: int
    app: str
    doing: str = "waiting for work"


class LastWork(BaseModel):
    work_id: str
    outcome: str
    train_seconds: float | None = None
    at: AwareDatetime


class LastError(BaseModel):
    """`code`: as the control plane was told, where it was."""

    message: str
    code: str | None = None
    at: AwareDatetime


class Status(BaseModel):
    model_config = ConfigDict(extra="ignore")

    pid: int
    started_at: float
    phase: Phase = "starting"
    client_id: str
    tenant: str
    server: str
    certificate_expires_at: AwareDatetime
    dataset: str = ""
    store: str = ""
    """Where the orders' presigned addresses are, without their paths."""
    leases: list[LeaseStatus] = []
    last_work: LastWork | None = None
    last_error: LastError | None = None
    finished: dict[str, int] = {}
    answered_from_journal: int = 0
    clock_wrong_by: float = 0.0
    """Seconds by which the machine's clock is ahead of the control plane's."""


class StatusBoard:
    """The status of the running agent, and the file it is written to."""

    def __init__(self, state: StateDir, status: Status) -> None:
        self._path = state.status
        self.status = status
        self._is_written = True
        self.write()

    def write(self) -> None:
        """Write it down; a disk without room for it stops no work.

        Not synced: after a power failure there is no agent whose status it could be.
        """
        self.status.clock_wrong_by = round(clock.wrong_by(), 1)
        document = self.status.model_dump_json(indent=2) + "\n"
        try:
            write_private(self._path, document, is_durable=False)
        except OSError as error:
            with suppress(OSError):
                _write_over(self._path, document.encode())
            if self._is_written:
                logger.warning("the status is not written: %s", error.strerror)
            self._is_written = False
        else:
            self._is_written = True

    def enter(self, phase: Phase) -> None:
        if phase != self.status.phase:
            self.status.phase = phase
            self.write()

    def error(self, message: str, code: str | None = None) -> None:
        self.status.last_error = LastError(message=message, code=code, at=clock.utc())
        self.write()

    def work(self, work_id: str, outcome: str, train_seconds: float | None = None) -> None:
        self.status.last_work = LastWork(
            work_id=work_id, outcome=outcome, train_seconds=train_seconds, at=clock.utc()
        )
        self.write()

    def lease(self, lease: LeaseStatus) -> None:
        self.status.leases = [*self._others(lease.lease_id), lease]
        self.write()

    def drop(self, lease_id: str) -> None:
        self.status.leases = self._others(lease_id)
        self.write()

    def _others(self, lease_id: str) -> list[LeaseStatus]:
        return [lease for lease in self.status.leases if lease.lease_id != lease_id]


def _write_over(path: Path, content: bytes) -> None:
    """Without a new file: what a full disk still allows, as long as it is not much longer."""
    with path.open("rb+", buffering=0) as file:
        file.write(content.ljust(path.stat().st_size))


def read_status(state: StateDir) -> Status | None:
    """What the last agent said; None where none ever ran."""
    try:
        return Status.model_validate_json(state.status.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
