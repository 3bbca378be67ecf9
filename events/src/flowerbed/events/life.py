"""The life of a service: what its shell was given to do begins, runs and ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fastapi import FastAPI

from flowerbed.contracts.topology import PARTITIONS
from flowerbed.events.errors import Unavailable
from flowerbed.events.leadership import partition_role
from flowerbed.events.relay import Relay
from flowerbed.events.serving import Listener, tcp_socket, unix_socket
from flowerbed.events.supervision import supervised

if TYPE_CHECKING:
    from flowerbed.events.service import Shell

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Awaitable[None]]
PartWork: TypeAlias = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Duties:
    """What a service does for as long as it runs.

    `work`: by name, and whether one replica at a time does it. `in_partitions`: for each
    partition, on one replica. `heard`: by the subject of the nudge. `served`: on Unix sockets.
    """

    work: dict[str, tuple[Work, bool]] = field(default_factory=dict)
    in_partitions: dict[str, PartWork] = field(default_factory=dict)
    heard: dict[str, Callable[[bytes], None]] = field(default_factory=dict)
    served: list[tuple[FastAPI, Path]] = field(default_factory=list)


class Life:
    def __init__(self, shell: "Shell") -> None:
        self._shell = shell
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: list[Listener] = []

    async def start(self) -> None:
        """Open sockets first (a taken port is fatal), then everything that may be away."""
        shell, duties = self._shell, self._shell.duties
        sockets = [(shell.app, tcp_socket(shell.settings.http_host, shell.settings.http_port))]
        sockets += [(app, unix_socket(path)) for app, path in duties.served]
        await shell.database.open()
        await shell.bus.start()
        for subject, told in duties.heard.items():
            await shell.bus.listen(subject, told)
        lead = shell.leadership.lead
        self._spawn("leadership", shell.leadership.run)
        for name, (work, leader) in duties.work.items():
            self._spawn(name, partial(lead, name, work) if leader else work)
        for number in range(PARTITIONS) if duties.in_partitions else ():
            role = partition_role(number)
            work, leave = partial(self._run_part, number), partial(self._leave_part, number)
            self._spawn(role, partial(lead, role, work, leave))
        for app, listening in sockets:
            listener = Listener(app, listening)
            self._listeners.append(listener)
            self._tasks[f"http {listening.getsockname()}"] = asyncio.create_task(
                listener.run_until_stopped()
            )

    async def stop(self) -> None:
        """Take no more work, finish what is under way, then let go of everything."""
        shell = self._shell
        shell.stopping.set()
        for intake in shell.intakes.values():
            intake.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.gather(*(one.is_idle.wait() for one in shell.intakes.values()))
        # Another replica can go on with them while what was asked here is still answered.
        await self._end([partition_role(number) for number in range(PARTITIONS)], patience=0.0)
        for listener in self._listeners:
            listener.stop()
        await self._end([name for name in self._tasks if name.startswith("http")], patience=10.0)
        others = [name for name in self._tasks if name not in ("leadership", "relay")]
        await self._end(others, patience=0.0)
        if shell.relaying is not None and shell.leadership.holds("relay"):
            await _save_mark(shell.relaying)
        await self._end(["relay"], patience=0.0)
        await self._end(["leadership"], patience=0.0)
        await shell.bus.close()
        await shell.database.close()

    async def _end(self, names: Sequence[str], patience: float) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        if not tasks:
            return
        if patience:
            _, tasks_left = await asyncio.wait(tasks, timeout=patience)
            tasks = list(tasks_left)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _run_part(self, number: int) -> None:
        """All that is done for one partition, until it is lost."""
        async with asyncio.TaskGroup() as group:
            for name, work in self._shell.duties.in_partitions.items():
                described = f"{name}, partition {number}"
                group.create_task(self._supervised(described, partial(work, number)))

    async def _leave_part(self, number: int) -> None:
        """Let its consumers finish their batches."""
        mine = [one for one in self._shell.intakes.values() if one.partition == number]
        for intake in mine:
            intake.pass_on()
        for intake in mine:
            await intake.is_idle.wait()

    def _spawn(self, name: str, work: Work) -> None:
        self._tasks[name] = asyncio.create_task(self._supervised(name, work), name=name)

    def _supervised(self, name: str, work: Work) -> Coroutine[Any, Any, None]:
        return supervised(name, work, self._shell.stopping, self._shell.failing)


async def _save_mark(relay: Relay) -> None:
    try:
        await relay.save()
    except Unavailable as error:
        logger.info("the relay's mark was not saved: %s", error)
