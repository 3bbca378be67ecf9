"""The ground of an experiment: a stack of its own, four sites with runners, and what may be hurt.

It also plays the operator of the machine: what is dead together with its keeper is started again.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flowerbed.cli.api import Api
from flowerbed.embedded.control import down, up
from flowerbed.embedded.errors import EmbeddedError
from flowerbed.embedded.identity import ProcessId
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.record import read_record
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import remove
from flowerbed.runner.control import running_agent
from flowerbed.runner.keeping import running_keeper
from flowerbed.runner.state import StateDir
from scripts.faults.disks import Disks
from scripts.faults.link import Links
from scripts.prepare_data import prepare
from tests.support.field import Site, until

DATA_SEED = 7
SITES = ("cleveland", "hungary", "switzerland", "va-long-beach")
LINKED = ("postgres", "nats", "s3", "client_door")
FAILPOINTS = "FLOWERBED_FAILPOINTS"
CLOCK_OFFSETS = "FLOWERBED_CLOCK_OFFSET_FILE"
LEFT_ALONE = 2.0
"""Seconds that a runner without a keeper is left alone: it may be about to have one again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the stack is, and what of it can be broken."""

    replicas: int = 1
    nats_nodes: int = 1
    has_links: bool = True
    has_disks: bool = True

    def options(self) -> dict[str, int]:
        """For `up`: what differs from its defaults."""
        sizes = {"replicas": self.replicas, "nats_nodes": self.nats_nodes}
        return {name: size for name, size in sizes.items() if size != 1}


@dataclass(slots=True)
class Ground:
    root: Path
    shape: Shape = field(default_factory=Shape)
    sites: list[Site] = field(default_factory=list)
    links: Links | None = None
    disks: Disks | None = None
    _missing_since: dict[str, float] = field(default_factory=dict)
    _starting: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)
    _operator: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _raising: Future[None] | None = None

    # --- its life -------------------------------------------------------------------------------

    @property
    def state_dir(self) -> Path:
        return self.root / "stack"

    @property
    def layout(self) -> Layout:
        return Layout.at(self.state_dir)

    @property
    def stack(self) -> Stack:
        return Stack(self.state_dir)

    @property
    def failpoint(self) -> Path:
        return self.root / "failpoint.json"

    @property
    def api(self) -> Api:
        """A connection of its own to the gateway, for one thread."""
        return Api(self.stack.gateway_url, self.stack.api_token)

    def homes(self) -> dict[str, Path]:
        return {site.name: site.home for site in self.sites}

    def start(self) -> None:
        """The stack, then four enrolled runners that poll."""
        os.environ[FAILPOINTS] = str(self.failpoint)  # the services inherit it
        if self.shape.has_links:
            links = linked(self.shape.nats_nodes)
            self.links = Links({name: self._port_of(name) for name in links})
        if self.shape.has_disks:
            self.disks = Disks.mount(self.layout, self.shape.nats_nodes)
        self.up()
        prepare("hospital", self.root / "data", DATA_SEED)
        for name in SITES:
            self.sites.append(Site(name, self.root / "data" / name, self.root / "clients" / name))
        starting = [self._start_runner(site, self._invite()) for site in self.sites]
        for process in starting:
            assert process.wait(90) == 0, process.stderr and process.stderr.read()

    def stop(self, *, keep: bool = False) -> None:
        """End every process; delete all data unless `keep`, which leaves disks mounted too."""
        for process in self._starting.values():
            process.kill()
        self._operator.shutdown()
        with ThreadPoolExecutor() as pool:
            stopped: list[Future[Any]] = [pool.submit(site.stop) for site in self.sites]
            stopped.append(pool.submit(down, self.state_dir))
        for one in stopped:
            one.result()
        if self.links is not None:
            self.links.close()
        if self.disks is not None and not keep:
            self.disks.unmount()
        os.environ.pop(FAILPOINTS, None)
        if not keep:
            remove(self.state_dir)
            shutil.rmtree(self.root, ignore_errors=True)

    def up(self) -> None:
        options: dict[str, Any] = self.shape.options()
        if self.links is not None:
            ports = self.links.ports
            options["links"] = {name: ports[name] for name in LINKED} | {
                "nats": [ports[name] for name in ports if name.startswith("nats")]
            }
        up(self.state_dir, **options)

    # --- who runs -------------------------------------------------------------------------------

    def processes(self) -> dict[str, ProcessId]:
        """Every process that may be hurt, by a name that stays when it is started again."""
        found: dict[str, ProcessId] = {}
        record = read_record(self.layout)
        if record is not None:
            if record.supervisor.is_alive():
                found["supervisor"] = record.supervisor
            if record.keeper is not None and record.keeper.is_alive():
                found["keeper"] = record.keeper
            for component in record.components:
                if component.process is not None and component.process.is_alive():
                    found[component.name] = component.process
        if (server := found.get("postgres")) is not None:
            found |= _backend(server)
        for site in self.sites:
            found |= _of_site(site)
        return found

    # --- the operator ---------------------------------------------------------------------------

    def tend(self) -> list[str]:
        """Start what nobody else starts: called every now and then. Says what was started."""
        said = []
        if not self._is_kept() and (self._raising is None or self._raising.done()):
            self._raising = self._operator.submit(self._raise_up)
            said.append("supervisor")
        for site in self.sites:
            if self._is_missing(site):
                self._starting[site.name] = self._start_runner(site)
                said.append(f"agent-{site.name}")
        return said

    def _raise_up(self) -> None:
        """Beside the faults: while a link is cut `up` waits for whoever needs it."""
        with suppress(EmbeddedError):
            self.up()

    def restart_all(self) -> None:
        """SIGKILL to every process at once, the runners too; `tend` starts them again."""
        there = self.processes()
        for name in sorted(there, key=lambda name: not name.startswith("keeper")):
            there[name].signal(signal.SIGKILL)
        until(lambda: not self._is_kept() or None, "the supervisor and its keeper are gone", 10)

    def skew(self, site: str, seconds: float) -> None:
        """Set the clock of a site's runner wrong, or right again with 0."""
        self._clock(site).write_text(f"{seconds:g}\n")

    def until_well(self, seconds: float = 120.0) -> None:
        """Everything runs and says that it is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.tend()
            if self._is_well():
                return
            time.sleep(0.3)
        raise AssertionError(f"the stack is not well within {seconds:g} s")

    def _is_well(self) -> bool:
        record = read_record(self.layout)
        if record is None or not record.is_supervised() or record.state != "running":
            return False
        ready = all(component.state == "ready" for component in record.components)
        return ready and all(running_agent(StateDir(site.home)) for site in self.sites)

    def _is_kept(self) -> bool:
        record = read_record(self.layout)
        return record is not None and (record.is_supervised() or record.is_kept())

    def _is_missing(self, site: Site) -> bool:
        starting, state = self._starting.get(site.name), StateDir(site.home)
        if starting is not None and starting.poll() is None:
            return False
        if running_agent(state) is not None or running_keeper(state) is not None:
            self._missing_since.pop(site.name, None)
            return False
        since = self._missing_since.setdefault(site.name, time.monotonic())
        return time.monotonic() - since > LEFT_ALONE

    def _start_runner(self, site: Site, invite: str = "") -> "subprocess.Popen[str]":
        """The runner reads its clock's error from a file of its own."""
        os.environ[CLOCK_OFFSETS] = str(self._clock(site.name))
        try:
            return site.start(invite)
        finally:
            del os.environ[CLOCK_OFFSETS]

    def _clock(self, site: str) -> Path:
        return self.root / f"clock-{site}"

    def _invite(self) -> str:
        body = {"tenant": "acme", "tags": ["hospital"]}
        invite: str = self.api.post("/clients/invites", body)["invite"]
        return invite

    def _port_of(self, name: str) -> Callable[[], int]:
        return lambda: self.stack.port(name)


def linked(nats_nodes: int) -> tuple[str, ...]:
    """The links of a stack: one to each server, and one to each node of NATS."""
    return (*LINKED, *(f"nats-{number}" for number in range(2, nats_nodes + 1)))


def _backend(server: ProcessId) -> Mapping[str, ProcessId]:
    """The oldest Postgres process that serves a client."""
    try:
        children = psutil.Process(server.pid).children()
        serving = [one for one in children if "_app " in " ".join(one.cmdline())]
    except psutil.Error:
        return {}
    found = min(serving, key=lambda one: one.create_time(), default=None)
    identity = ProcessId.of(found.pid) if found is not None else None
    return {} if identity is None else {"backend": identity}


def _of_site(site: Site) -> Mapping[str, ProcessId]:
    state = StateDir(site.home)
    found = {}
    for role, running in (("agent", running_agent(state)), ("keeper", running_keeper(state))):
        identity = ProcessId.of(running.pid) if running is not None else None
        if identity is not None:
            found[f"{role}-{site.name}"] = identity
    with suppress(psutil.Error, OSError, json.JSONDecodeError):
        for role, processes in (("nursery", site.nurseries()), ("worker", site.workers())):
            for one in processes:
                if (process := ProcessId.of(one.pid)) is not None:
                    found[f"{role}-{site.name}"] = process
    return found
