"""The process that runs a stack: starts its servers and services, and keeps them running.

python -m flowerbed.embedded.supervisor --state-dir DIR [--services lease,gateway] [--shape JSON]
    [--progress FD] [--again]

What it has started outlives it. When it is killed, its keeper becomes another supervisor
(`--again`), which goes on with the processes that run.
"""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded import keeper
from flowerbed.embedded.caddy import caddy_spec
from flowerbed.embedded.child import Child, ChildSpec
from flowerbed.embedded.databases import (
    finish_migrations,
    migrate_databases,
    provision_databases,
)
from flowerbed.embedded.errors import ComponentFailed, EmbeddedError
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.leftovers import end_leftovers, stop_groups
from flowerbed.embedded.lock import held
from flowerbed.embedded.nats_server import nats_specs
from flowerbed.embedded.observers import observer_specs
from flowerbed.embedded.ports import is_free
from flowerbed.embedded.postgres import find_postgres, postgres_spec, prepare_postgres
from flowerbed.embedded.progress import Progress, ProgressPipe
from flowerbed.embedded.record import StackRecord, StackState, read_record, write_record
from flowerbed.embedded.s3_server import ensure_bucket, s3_spec
from flowerbed.embedded.services import check_installed, service_spec
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Shape, from_json, read_shape
from flowerbed.embedded.streams import declare_streams, retire_streams
from flowerbed.embedded.superlink import superlink_specs

logger = logging.getLogger(__name__)

MANY_FILES = 65_536

ATTEMPTS = 3


class Supervisor:
    """Owns every process of one stack, from start to stop."""

    def __init__(
        self,
        layout: Layout,
        services: tuple[str, ...] = SERVICES,
        shape: Shape | None = None,
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._layout = layout
        self._services = services
        self._shape = read_shape(layout) if shape is None else shape
        self._report = report
        self._children: dict[str, Child] = {}
        self._state: StackState = "starting"
        self._since = _now()
        self._began = time.monotonic()
        me = ProcessId.of(os.getpid())
        assert me is not None
        self._me = me
        self._keeper = Child(_keeper_spec(layout, services), self._write_record)

    async def run(self, stop: asyncio.Event, *, again: bool = False) -> None:
        """Start everything, keep it running until `stop` is set, then end everything.

        With `again`, in the place of a supervisor that was killed: what runs is left running.

        Raises:
            EmbeddedError: it could not be started; nothing of it is left running.
        """
        check_installed(self._services)
        previous = await asyncio.to_thread(read_record, self._layout)
        if previous is not None and previous.keeper is not None:
            previous.keeper.signal(signal.SIGKILL)  # it has become us, or comes too late
        self._keeper.resume(self._keeper.record())
        if again and previous is not None and previous.state == "running":
            starting = asyncio.create_task(self._resume(previous))
        else:
            if previous is not None:
                await asyncio.to_thread(end_leftovers, previous)
            if again and (previous is None or previous.state != "starting"):
                await self._stop("stopped")  # it was stopping
                return
            starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and (error := starting.exception()) is not None:
            await self._stop("failed")
            raise error
        if starting.done():
            self._become("running")  # first: whoever hears of it looks it up
            self._report(self._progress("stack", "done"))
            await stopped
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await self._stop("stopped")

    async def _start(self) -> None:
        """Again with other ports when somebody took one between the choice and the start."""
        for attempt in range(1, ATTEMPTS + 1):
            setup = await asyncio.to_thread(Setup.prepare, self._layout, self._shape)
            self._began = time.monotonic()
            try:
                await self._start_all(setup)
                return
            except ComponentFailed as error:
                await self._stop_children()
                if attempt == ATTEMPTS or all(map(is_free, setup.ports.values())):
                    raise
                logger.warning("%s; starting again with other ports", error)

    async def _start_all(self, setup: Setup) -> None:
        await _all(
            self._start_postgres(setup),
            self._start_nats(setup),
            self._start_s3(setup),
            self._start_child(caddy_spec(setup)),
            *(self._start_child(spec) for spec in superlink_specs(setup)),
        )
        await _all(*(self._start_child(spec) for spec in self._service_specs(setup)))
        await finish_migrations(setup, self._services)
        await retire_streams(setup)

    async def _resume(self, earlier: StackRecord) -> None:
        """Go on with the processes that an earlier supervisor had; start those that have ended."""
        setup = await asyncio.to_thread(Setup.of_running, self._layout)
        servers = (
            postgres_spec(setup, await find_postgres(setup)),
            *nats_specs(setup),
            s3_spec(setup),
            caddy_spec(setup),
            *superlink_specs(setup),
        )
        known = {item.name: item for item in earlier.components}
        for spec in (*servers, *self._service_specs(setup)):
            child = self._children[spec.name] = Child(spec, self._write_record)
            child.resume(known.get(spec.name, child.record()))

    def _service_specs(self, setup: Setup) -> list[ChildSpec]:
        """The services, and who watches them."""
        replicas = [one for service in self._services for one in setup.replicas(service)]
        observers = observer_specs(setup) if replicas else ()
        return [*(service_spec(setup, replica) for replica in replicas), *observers]

    async def _start_postgres(self, setup: Setup) -> None:
        place = await prepare_postgres(setup)
        await self._start_child(postgres_spec(setup, place))
        await provision_databases(setup, place)
        await migrate_databases(setup, self._services)
        self._report(self._progress("databases", "ready"))

    async def _start_nats(self, setup: Setup) -> None:
        await _all(*(self._start_child(spec) for spec in nats_specs(setup)))
        await declare_streams(setup)
        self._report(self._progress("streams", "ready"))

    async def _start_s3(self, setup: Setup) -> None:
        await self._start_child(s3_spec(setup))
        await asyncio.to_thread(ensure_bucket, setup)

    async def _start_child(self, spec: ChildSpec) -> None:
        child = self._children[spec.name] = Child(spec, self._write_record)
        self._report(self._progress(spec.name, "starting"))
        await child.start()
        self._report(self._progress(spec.name, "ready"))

    async def _stop(self, final: StackState) -> None:
        self._become("stopping")
        await self._stop_children()
        self._become(final)
        await self._keeper.stop()  # last: until here another supervisor would go on with it

    async def _stop_children(self) -> None:
        components = tuple(child.record() for child in self._children.values())
        for group in stop_groups(components):
            await asyncio.gather(*(self._children[item.name].stop() for item in group))
        self._children = {}

    def _become(self, state: StackState) -> None:
        logger.info("the stack is %s", state)
        self._state = state
        self._write_record()

    def _write_record(self) -> None:
        record = StackRecord(
            state=self._state,
            supervisor=self._me,
            since=self._since,
            components=tuple(child.record() for child in self._children.values()),
            keeper=self._keeper.record().process,
        )
        write_record(self._layout, record)

    def _progress(self, component: str, step: str) -> Progress:
        seconds = round(time.monotonic() - self._began, 3)
        return Progress(component=component, step=step, seconds=seconds)  # type: ignore[arg-type]


async def _all(*parts: Awaitable[None]) -> None:
    """All at once; the first failure ends the others."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _keeper_spec(layout: Layout, services: tuple[str, ...]) -> ChildSpec:
    supervisor = (
        sys.executable, "-P", "-m", "flowerbed.embedded.supervisor",
        "--state-dir", str(layout.root), "--services", ",".join(services), "--again",
    )  # fmt: skip
    return ChildSpec(
        name="keeper",
        kind="server",
        argv=(sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), *supervisor),
        address="",
        probe=lambda pid: None,
        log=layout.log("supervisor"),
        directory=Path("/"),
        env=os.environ,
    )


async def supervise(
    layout: Layout, services: tuple[str, ...], shape: Shape, pipe: ProgressPipe, *, again: bool
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def report(progress: Progress) -> None:
        pipe.send(progress)
        if progress.step == "done":
            pipe.close()

    try:
        await Supervisor(layout, services, shape, report).run(stop, again=again)
    except EmbeddedError as error:
        logger.error("%s", error)
        failed = error.component if isinstance(error, ComponentFailed) else "stack"
        tail = error.log_tail if isinstance(error, ComponentFailed) else ""
        pipe.send(Progress(component=failed, step="failed", reason=str(error), log_tail=tail))
        return 1
    return 0


def allow_many_files() -> None:
    """A waiting client needs seven of them, in the front and in the lease service together."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if most == resource.RLIM_INFINITY else min(most, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flowerbed.embedded.supervisor")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--services", default=",".join(SERVICES))
    parser.add_argument("--shape", type=from_json)
    parser.add_argument("--progress", type=int)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    if os.fork():  # the caller gets its shell back, and never has us as a child to reap
        os._exit(0)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    allow_many_files()
    layout, pipe = Layout.at(options.state_dir), ProgressPipe(options.progress)
    with held(layout) as ours:
        if not ours:
            pipe.send(Progress(component="stack", step="taken"))
            return 0
        services = tuple(filter(None, options.services.split(",")))
        shape = options.shape or read_shape(layout)
        return asyncio.run(supervise(layout, services, shape, pipe, again=options.again))


if __name__ == "__main__":
    sys.exit(main())
