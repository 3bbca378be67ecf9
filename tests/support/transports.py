"""The transports as tests of conformance see them: what each makes of a spec, and how it dies.

Another transport is another function, given a field whose four sites run. Those of `TRANSPORTS` go
through any field; `superlink` needs one with a SuperLink, and sites with SuperNodes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flowerbed.runner.supernode import MARK
from tests.support.field import Field, until

Document = dict[str, Any]


@dataclass(frozen=True)
class Transport:
    """`spec`: what a spec says besides, to travel this way. `kill`: whatever carries its messages
    dies, as the kernel would have it; returns once another is at work. `n_rounds`: as many as take
    no longer than a test may."""

    name: str
    spec: dict[str, Any]
    kill: Callable[[str], None]
    n_rounds: int = 3

    def document(self, document: Document) -> Document:
        changed = deepcopy(document)
        changed["spec"] |= self.spec
        return changed


def bus(field: Field) -> Transport:
    """The sites' agents over the clients' door: the lease service carries their orders."""

    def kill(federation_id: str) -> None:
        dead = field.kill("lease")
        until(lambda: field.is_back("lease", dead), "the lease service is back")

    return Transport("bus", {}, kill)


def simulation(field: Field) -> Transport:
    """Virtual clients, of whom each has the data of one of the sites."""
    data = field.sites[0].folder.parent
    spec = {"runtime": "simulation", "simulation": {"clients": 4, "data": str(data)}}

    def kill(federation_id: str) -> None:
        (dead,) = simulations(field)
        os.kill(dead, signal.SIGKILL)
        until(lambda: set(simulations(field)) - {dead}, "another simulation runs")

    return Transport("simulation", spec, kill)


def superlink(field: Field) -> Transport:
    """Stock SuperNodes at the sites, through a stock SuperLink: a new process for each message."""

    def kill(federation_id: str) -> None:
        (dead,) = flowers("flower-superlink", field.stack.state_dir)
        dead.kill()
        until(
            lambda: (
                {one.pid for one in flowers("flower-superlink", field.stack.state_dir)} - {dead.pid}
            ),
            "another SuperLink runs",
        )

    return Transport("superlink", {"runtime": "superlink"}, kill, n_rounds=1)


TRANSPORTS = {one.__name__: one for one in (bus, simulation)}


def simulations(field: Field) -> list[int]:
    """The processes of simulations that the field's stack has."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "flowerbed.aggregator.simulation" in (process.info["cmdline"] or []):
            try:
                if process.cwd().startswith(str(field.stack.state_dir)):
                    found.append(process.pid)
            except psutil.Error:
                continue
    return found


@contextmanager
def ray_cluster() -> Iterator[str]:
    """A small one that somebody else has started, on loopback alone: its address."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--port", str(port),
        "--num-cpus", "2", "--include-dashboard", "false", "--disable-usage-stats",
        "--object-store-memory", "100000000", "--temp-dir", str(folder), "--block",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        env={**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        started = any("Ray runtime started" in line for line in process.stdout)
        assert started, f"ray start ended with {process.wait()}"
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def flowers(program: str, home: Path) -> list[psutil.Process]:
    """Flower's processes of that program, as they belong to the site or the stack there."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        place = environment.get(MARK) or environment.get("FLWR_HOME") or ""
        words = (process.info["cmdline"] or [])[:2]
        if place.startswith(str(home)) and any(Path(word).name == program for word in words):
            found.append(process)
    return found


def of_ray() -> list[str]:
    """What runs of Ray's own, or for it."""
    names = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and "fb-ray-" in words:
            names.append(words[:200])
    return names
