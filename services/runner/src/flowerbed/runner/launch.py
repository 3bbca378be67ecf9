"""Wire an agent from its state directory and run it until a signal: the one place for both."""

import asyncio
import fcntl
import json
import logging
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
import psutil
import uvloop

from flowerbed.flower_apps.nursery import starter
from flowerbed.runner import clock
from flowerbed.runner.agent import Agent
from flowerbed.runner.dataset import Dataset
from flowerbed.runner.door import Door
from flowerbed.runner.errors import BadInput
from flowerbed.runner.http import open_client
from flowerbed.runner.identity import Identity, IdentityStore, enrolled_identity
from flowerbed.runner.interpreter import worker_command as own_command
from flowerbed.runner.journal import Journal
from flowerbed.runner.keeping import keep_the_keeper
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.site import Site
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import Status, StatusBoard
from flowerbed.runner.supernode import become_reaper, flower_programs
from flowerbed.runner.telemetry import exported_spans
from flowerbed.runner.transfer import open_store
from flowerbed.runner.verify import KeyRing
from flowerbed.runner.warm import environment

logger = logging.getLogger(__name__)


LOCK_BYTES = 128


class AlreadyRunning(BadInput):
    """Another agent has this state directory."""


def run_agent(
    state: StateDir,
    worker_command: Sequence[str] | None = None,
    *,
    keeper: int | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; SIGUSR1 also gives the leases back.

    `worker_command`: None is what the settings say.
    `keeper`: the process that starts us again; it is replaced if it is killed.

    Raises:
        BadInput: the client is not enrolled, its dataset is unusable, or an agent runs already.
    """
    with _sole_agent(state):
        uvloop.run(_run(state, worker_command, keeper))


async def _run(state: StateDir, worker_command: Sequence[str] | None, keeper: int | None) -> None:
    stop = asyncio.Event()
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _set_both, release, stop)
    store = IdentityStore(state)
    async with open_site(state, store, worker_command) as site:
        agent = Agent(site, store)
        state.clear_leftovers()
        site.tidy()
        logger.info("client %s polls %s", site.identity.client_id, site.identity.client_url)
        beside = [keep_the_keeper(state, keeper)] if keeper is not None else []
        try:
            await agent.run(stop, release, *beside)
        except BadInput as error:
            site.board.error(str(error))
            raise
        finally:
            site.board.enter("stopped")


def _set_both(release: asyncio.Event, stop: asyncio.Event) -> None:
    release.set()
    stop.set()


@asynccontextmanager
async def open_site(
    state: StateDir, store: IdentityStore, worker_command: Sequence[str] | None
) -> AsyncIterator[Site]:
    """Everything the agent needs, open.

    Raises:
        BadInput: the client is not enrolled, or was never started with a dataset.
    """
    identity = enrolled_identity(state, clock.doubt())
    settings = AgentSettings.load(state)
    dataset = Dataset.named(settings.dataset, settings.task, state.digests)
    own = psutil.Process()
    status = Status(
        pid=own.pid,
        started_at=own.create_time(),
        client_id=identity.client_id,
        tenant=identity.tenant,
        server=identity.client_url,
        certificate_expires_at=store.expires_at(),
    )
    board = StatusBoard(state, status)
    await _show_dataset(dataset, board)
    journal = Journal(state.journal)
    with suppress(sqlite3.Error):  # a full disk: told when there is work
        status.finished = journal.counts()
    door = Door(identity.client_url, partial(_connect, store, identity))
    s3 = open_store(identity.ca_pem)

    async def refetch() -> dict[str, Any]:
        jwks = await door.jwks()
        store.save(replace(identity, jwks=jwks))
        return jwks

    if settings.superlink:
        become_reaper()
        flower_programs(settings.python)
    command = worker_command or own_command(settings.python)
    start_worker = starter(command, environment(os.environ))
    endpoint, protocol = settings.otlp_endpoint, settings.otlp_protocol
    try:
        allowed = settings.otlp_allowed
        with exported_spans(identity.client_id, endpoint, protocol, allowed) as spans:
            yield Site(
                state=state,
                identity=identity,
                dataset=dataset,
                journal=journal,
                door=door,
                store=s3,
                keys=KeyRing(identity.jwks, refetch),
                board=board,
                start_worker=start_worker,
                node_config=settings.node_config,
                hands_out_logs=settings.logs,
                python=settings.python,
                has_supernodes=settings.superlink,
                spans=spans,
            )
    finally:
        await start_worker.close()
        await door.close()
        await s3.aclose()
        journal.close()


async def _show_dataset(dataset: Dataset, board: StatusBoard) -> None:
    """A dataset that is away may come back: the control plane hears of it with the first offer."""
    try:
        board.status.dataset = (await asyncio.to_thread(dataset.reference)).label
    except BadInput as error:
        logger.warning("%s", error)
        board.error(str(error))


def _connect(store: IdentityStore, identity: Identity) -> httpx.AsyncClient:
    return open_client(store.client_context(identity))


@contextmanager
def _sole_agent(state: StateDir) -> Iterator[None]:
    """Hold the lock for as long as the agent runs; the file says which process that is."""
    state.make()
    handle = os.open(state.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"an agent runs already in {state.root}") from error
        own = psutil.Process()
        holder = json.dumps({"pid": own.pid, "started_at": own.create_time()})
        # Written over in place: that needs no room on a disk that is full.
        os.pwrite(handle, holder.ljust(LOCK_BYTES).encode(), 0)
        try:
            yield
        finally:
            os.pwrite(handle, b" " * LOCK_BYTES, 0)
    finally:
        os.close(handle)
