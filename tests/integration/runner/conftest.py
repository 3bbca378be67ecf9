"""A control plane, a site with data, and agents that end with their test."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from flowerbed.contracts.values import DatasetRef
from flowerbed.flower_apps import registry
from flowerbed.runner.agent import Agent
from flowerbed.runner.dataset import Dataset
from flowerbed.runner.enrol import enrol
from flowerbed.runner.errors import BadInput
from flowerbed.runner.identity import IdentityStore
from flowerbed.runner.launch import open_site
from flowerbed.runner.lease_work import LeaseWork
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir
from tests.integration.runner.control_plane import ControlPlane
from tests.integration.runner.tiny_app import AGENT_COMMAND, TINY, WORKER_COMMAND

BASE = save({"weights": np.arange(4, dtype=np.float32)})


@pytest.fixture
def tiny_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN, "tiny", TINY)


@pytest.fixture
def control_plane(tmp_path: Path, tiny_installed: None) -> Iterator[ControlPlane]:
    folder = tmp_path / "control-plane"
    folder.mkdir()
    control_plane = ControlPlane(folder)
    yield control_plane
    control_plane.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of three rows, in a place whose name nobody else may learn."""
    folder = tmp_path / "st-elsewhere" / "cardiology"
    folder.mkdir(parents=True)
    (folder / "rows.txt").write_text("a b c\n")
    return folder


@pytest.fixture
def reference(folder: Path) -> DatasetRef:
    return Dataset.open(f"local:{folder}", "heart").reference()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir.at(tmp_path / "state")


@pytest.fixture
def enrolled(control_plane: ControlPlane, state: StateDir, folder: Path) -> StateDir:
    enrol(control_plane.invite(), state)
    AgentSettings(dataset=f"local:{folder}", task="heart").save(state)
    return state


class AgentProcess:
    """An agent as a process of its own, which a test may kill."""

    def __init__(self, state: StateDir, kill_at: str = "") -> None:
        self.state = state
        with state.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*AGENT_COMMAND, str(state.root)],
                env={**os.environ, "KILL_AT": kill_at},
                stdout=log,
                stderr=log,
            )

    def wait_killed(self) -> None:
        assert self.process.wait(30) == -signal.SIGKILL, self.state.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class AgentThread:
    """An agent beside the test: quicker to start than a process, the same code."""

    def __init__(self, state: StateDir) -> None:
        self.error: BadInput | None = None
        self._state = state
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._release = asyncio.Event(), asyncio.Event()
        store = IdentityStore(self._state)
        async with open_site(self._state, store, WORKER_COMMAND) as site:
            self._ready.set()
            try:
                self.agent = Agent(site, store)
                await self.agent.run(self._stop, self._release)
            except BadInput as error:
                self.error = error

    def warm_worker(self) -> int | None:
        """The process of a worker that has loaded its app, and has nothing to do."""
        works = [work for work, _ in list(self.agent._leases.values())]
        workers = [work._bench.worker for work in works if isinstance(work, LeaseWork)]
        return next((one.pid for one in workers if not one._turn.locked()), None)

    def pester(self) -> None:
        """Cancel the work under every lease, again and again until it has ended."""

        async def until_ended() -> None:
            for _, task in list(self.agent._leases.values()):
                while not task.done():
                    task.cancel()
                    await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(until_ended(), self._loop).result(10)

    def stop(self, *, release: bool = False) -> None:
        if self._thread.is_alive():
            if release:
                self._loop.call_soon_threadsafe(self._release.set)
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(15)
        assert not self._thread.is_alive()


@pytest.fixture
def start_agent(enrolled: StateDir) -> Iterator[Callable[[], AgentThread]]:
    agents: list[AgentThread] = []

    def start() -> AgentThread:
        agents.append(AgentThread(enrolled))
        return agents[-1]

    yield start
    for agent in agents:
        agent.stop()


@pytest.fixture
def start_process(enrolled: StateDir) -> Iterator[Callable[..., AgentProcess]]:
    agents: list[AgentProcess] = []

    def start(kill_at: str = "") -> AgentProcess:
        agents.append(AgentProcess(enrolled, kill_at))
        return agents[-1]

    yield start
    for agent in agents:
        agent.kill()
