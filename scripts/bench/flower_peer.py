"""Stock Flower of the pinned version, for the benches that compare with it.

`Flower` starts its processes: one SuperLink and a SuperNode for each node, or one SuperLink that
simulates them on Ray. `Run` is one run of an app. Everything listens on 127.0.0.1 at free ports,
without TLS, and ends with `Flower.stop`; `Setup` says what differs from Flower's own defaults.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
READY = 90.0
RESTARTED_AFTER = 1.0
_ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: Ray stays on 127.0.0.1
    "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
}

Value = bool | float | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """`nodes`: the configuration of each SuperNode.

    `poll_seconds`: how often a SuperExec asks for tasks; None for Flower's own second.
    `simulation`: how Ray is used (fields of Flower's SimulationConfig); None for a deployment.
    """

    nodes: tuple[Mapping[str, int | str], ...]
    isolation: str = "subprocess"
    has_database: bool = True
    poll_seconds: float | None = None
    simulation: Mapping[str, int] | None = None


@dataclass(slots=True)
class Flower:
    """All of its processes, each in a group of its own, with their logs below `root`."""

    root: Path
    setup: Setup
    port: int = 0
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def start(self) -> None:
        self.port, *node_ports = _free_ports(len(self.setup.nodes) + 1)
        self.commands["superlink"] = self._superlink()
        if self.setup.isolation == "process":
            self.commands["superexec"] = [
                str(BIN / "flower-superexec"), "--insecure",
                "--runtime-api-address", f"127.0.0.1:{self.port}",
            ]  # fmt: skip
        if self.setup.simulation is None:
            for number, (port, config) in enumerate(
                zip(node_ports, self.setup.nodes, strict=True), 1
            ):
                self.commands[f"supernode-{number}"] = self._supernode(port, config)
        for name in self.commands:
            self.spawn(name)
            if name == "superlink":
                _until_listening(self.port)

    def _superlink(self) -> list[str]:
        command = [
            str(BIN / "flower-superlink"), "--insecure", "--port", str(self.port),
            "--isolation", self.setup.isolation, "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        if self.setup.has_database:
            command += ["--database", str(self.root / "state.db")]
        if self.setup.simulation is not None:
            command += ["--simulation"]
        return command

    def _supernode(self, port: int, config: Mapping[str, int | str]) -> list[str]:
        command = [
            str(BIN / "flower-supernode"), "--insecure", "--port", str(port),
            "--superlink", f"127.0.0.1:{self.port}",
        ]  # fmt: skip
        if config:
            told = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
            command += ["--node-config", told]
        return command

    def spawn(self, name: str) -> None:
        environment = {
            **os.environ,
            **_ENVIRONMENT,
            "FLWR_HOME": str(self.root / "home"),
            "RAY_TMPDIR": str(self.root),
        }
        if self.setup.poll_seconds is not None:
            environment["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = str(self.setup.poll_seconds)
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def tend(self) -> None:
        """Start again what ended by itself or was killed, after a second."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                time.sleep(RESTARTED_AFTER)
                self.spawn(name)

    def tree(self) -> list[psutil.Process]:
        """Everything that was started for this root, orphans too: they know our directory."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("FLWR_HOME") == str(self.root / "home"):
                    found.append(process)
        return found

    def stop(self) -> None:
        for process in self.tree():
            with suppress(psutil.Error):
                process.kill()
        for started in self.processes.values():
            started.wait(10)

    def logs(self) -> dict[str, str]:
        """The end of each process's log."""
        return {path.name: path.read_text()[-500:] for path in self.root.glob("*.log")}


class Run:
    """One run of the app in a folder, over Flower's control API.

    `config` overrides the app's own; its `log` names the file in which the app tells what it does.
    """

    def __init__(self, flower: Flower, app: Path, config: Mapping[str, Value]) -> None:
        from flwr.supercore.control import ControlHttpClient

        self._log = Path(str(config["log"]))
        self._client = ControlHttpClient.from_server_address(
            f"127.0.0.1:{flower.port}", insecure=True, root_certificates=None, interceptors=[]
        )
        self.id = self._start(app, dict(config), flower.setup)

    def _start(self, app: Path, config: dict[str, Value], setup: Setup) -> int:
        from flwr.cli.build import build_fab_from_disk
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto import control_pb2 as pb
        from flwr.proto.federation_config_pb2 import SimulationConfig
        from flwr.supercore.fab import Fab

        content = build_fab_from_disk(app)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = pb.StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(config), federation=""
        )
        if setup.simulation is not None:
            simulated = SimulationConfig(num_supernodes=len(setup.nodes))
            for name, value in setup.simulation.items():
                setattr(simulated, name, value)
            request.override_federation_config.CopyFrom(simulated)
        return int(self._client.StartRun(request).run_id)

    def status(self) -> tuple[str, str, str]:
        """Status, sub-status and details; empty while the SuperLink does not answer."""
        from flwr.proto import control_pb2 as pb

        try:
            listed = self._client.ListRuns(pb.ListRunsRequest(run_id=self.id))
        except Exception:  # whatever its client raises while the server is away
            return "", "", ""
        if self.id not in listed.run_dict:
            return "gone", "", "the SuperLink does not know the run"
        found = listed.run_dict[self.id].status
        return found.status, found.sub_status, found.details

    def told(self) -> list[dict[str, Any]]:
        """What the app has written so far."""
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]


def until(look: Callable[[], bool], seconds: float, flower: Flower, step: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            logs = flower.logs()
            raise AssertionError(f"the run did not come so far within {seconds:g} s: {logs}")
        time.sleep(step)


def _until_listening(port: int) -> None:
    end = time.monotonic() + READY
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
