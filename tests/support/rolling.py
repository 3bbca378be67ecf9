"""Services of two releases on one set of servers, replaced one after the other."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.credentials import ensure_credentials
from flowerbed.embedded.databases import finish_migrations, migrate_databases
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.layout import Layout, write_private, write_private_json
from flowerbed.embedded.nats_server import render
from flowerbed.embedded.ports import read_ports
from flowerbed.embedded.services import SETTINGS_VARIABLE, settings
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Shape
from flowerbed.embedded.streams import declare_streams, retire_streams
from tests.support.field import until
from tests.support.releases import Release
from tests.support.servers import free_port


@dataclass
class Rolling:
    """Servers and services of the release before; `replace` puts this release's in their place."""

    layout: Layout
    before: Release
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        self.before.start_servers(self.layout.root)
        self.ports = read_ports(self.layout)
        for service in SERVICES:
            self._run(service, self.layout.settings(service), self.before.environment)
        for service in SERVICES:
            self._await_ready(service, self.ports[service])

    async def prepare(self) -> None:
        """What comes before the first service of this release: tables, users, durables."""
        setup = self.setup()
        await migrate_databases(setup, SERVICES)
        # Users may read the durables of this release as well; NATS reads its settings again.
        write_private(self.layout.secrets / "nats.conf", render(setup))
        os.kill(self._pid("nats"), signal.SIGHUP)
        await _declared(setup)

    def replace(self, service: str) -> None:
        """The new one is ready before the old one is told to end."""
        component = f"{service}-2"
        self.ports[component] = free_port()
        setup = self.setup()
        told = settings(setup, component)
        if service == "lease":  # the doors of the release before know one replica
            first = settings(setup, service)
            told |= {name: first[name] for name in ("client_socket", "enrol_socket")}
        path = self.layout.settings(component)
        write_private_json(path, told)
        self._run(component, path, os.environ)
        self._await_ready(component, self.ports[component])
        self.end(service)

    async def finish(self) -> None:
        """When no service of the release before is left."""
        await finish_migrations(self.setup(), SERVICES)
        await retire_streams(self.setup())

    def setup(self) -> Setup:
        """As this release sees it: two replicas of each service, of which one may not run."""
        credentials = ensure_credentials(self.layout)
        ports = {f"{service}-2": 1 for service in SERVICES} | self.ports
        ports |= {"gateway_door": ports["gateway"]}
        return Setup(self.layout, credentials, ports, replace(Shape(), replicas=2))

    def end(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for name in list(self.processes):
            self.end(name)
        with suppress(AssertionError):
            self.before.flowerbed("down", "--state-dir", str(self.layout.root))

    def _run(self, component: str, told: Path, environment: Mapping[str, str]) -> None:
        with self.layout.log(component).open("ab") as log:
            self.processes[component] = subprocess.Popen(
                [sys.executable, "-P", "-m", f"flowerbed.{component.partition('-')[0]}"],
                env={**environment, SETTINGS_VARIABLE: str(told)},
                stdout=log,
                stderr=log,
                cwd=self.layout.run,
            )

    def _await_ready(self, component: str, port: int) -> None:
        def look() -> bool:
            assert self.processes[component].poll() is None, f"{component} ended"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        until(look, f"{component} is ready", 60)

    def _pid(self, name: str) -> int:
        components = json.loads(self.layout.record.read_text())["components"]
        return int(next(c["process"]["pid"] for c in components if c["name"] == name))


async def _declared(setup: Setup) -> None:
    """JetStream is away for a moment while NATS reads its settings."""
    for _ in range(50):
        try:
            return await declare_streams(setup)
        except ComponentFailed:
            await asyncio.sleep(0.2)
    await declare_streams(setup)
