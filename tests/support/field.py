"""A whole field for end-to-end tests: a real stack, real sites with runners, and rogue clients."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import psutil

from flowerbed.cli.api import Api, Unreachable
from flowerbed.cli.failing import Refused
from flowerbed.contracts.federation import FederationCompleted
from flowerbed.contracts.ids import lease_id
from flowerbed.contracts.round import (
    RoundCompleted,
    RoundEvaluationStarted,
    RoundFailed,
    RoundStarted,
)
from flowerbed.embedded.stack import Stack
from flowerbed.flower_apps.forking import FLAG
from tests.support.collector import Collector
from tests.support.servers import BUSY

T = TypeVar("T")
FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))
FAILPOINT = Path(tempfile.gettempdir()) / f"flowerbed-failpoint-{os.getpid()}.json"
"""Where the services of the end-to-end tests look for a point at which to stop."""
ENDED = ("completed", "failed", "cancelled", "rejected")


def until(look: Callable[[], T | None], what: str, seconds: float = 60.0, pause: float = 0.05) -> T:
    """What `look` finds, as soon as it is something; waits for at most `seconds`, times `BUSY`."""
    seconds *= BUSY
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


def hands_of(agent: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The nursery, and the workers that it has forked. An agent of the release before has none, and
    starts its workers itself."""
    family = psutil.Process(agent).children(recursive=True)
    commands = {one.pid: one.as_dict(["cmdline"])["cmdline"] or [] for one in family}  # or a zombie
    forking = {pid for pid, words in commands.items() if words[-1:] == [FLAG]}
    workers = [
        one
        for one in family
        if one.ppid() in forking
        or ("flowerbed.runner.worker" in commands[one.pid] and one.pid not in forking)
    ]
    return [one for one in family if one.pid in forking and one not in workers], workers


@dataclass(frozen=True)
class Site:
    """One hospital: its own data folder and the state of its runner."""

    name: str
    folder: Path
    home: Path
    otlp_endpoint: str = ""
    otlp_allowed: str = ""
    superlink: bool = False

    def start(self, invite: str = "") -> "subprocess.Popen[str]":
        command = [FLOWERBED, "client", "start", "--dataset", f"local:{self.folder}"]
        command += ["--state-dir", str(self.home)]
        if self.otlp_endpoint:
            command += ["--otlp-endpoint", self.otlp_endpoint]
        if self.otlp_allowed:
            command += ["--otlp-allow", self.otlp_allowed]
        if self.superlink:
            command += ["--superlink"]
        if invite:
            command += ["--invite", "-"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(invite)
        process.stdin.close()
        return process

    def stop(self) -> None:
        command = [FLOWERBED, "client", "stop", "--state-dir", str(self.home)]
        subprocess.run(command, check=False, capture_output=True)

    def journal(self, query: str) -> list[tuple[Any, ...]]:
        path = f"file:{self.home / 'journal.sqlite3'}?mode=ro"
        with sqlite3.connect(path, uri=True, timeout=10) as connection:
            return connection.execute(query).fetchall()

    @property
    def client_id(self) -> str:
        identity: str = json.loads((self.home / "identity.json").read_text())["client_id"]
        return identity

    def training_works(self, federation_id: str) -> list[str]:
        """Runs of this federation that have begun and not ended: the names of their folders."""
        lease = lease_id(federation_id, self.client_id)
        rows = self.journal(
            "SELECT work FROM runs WHERE exchange = 'train' AND finished_at IS NULL"
            f" AND lease_id = '{lease}'"
        )
        return [work for (work,) in rows]

    def training_now(self, federation_id: str) -> bool:
        return bool(self.training_works(federation_id))

    def trains_in(self, federation_id: str, number: int) -> bool:
        """In that round or a later one: it has trained in each."""
        lease = lease_id(federation_id, self.client_id)
        query = f"FROM runs WHERE exchange = 'train' AND lease_id = '{lease}'"
        ((begun,),) = self.journal(f"SELECT count(DISTINCT work) {query}")
        return begun >= number and self.training_now(federation_id)

    def workers(self) -> list[psutil.Process]:
        return hands_of(self._agent)[1]

    def nurseries(self) -> list[psutil.Process]:
        return hands_of(self._agent)[0]

    @property
    def _agent(self) -> int:
        return int(json.loads((self.home / "status.json").read_text())["pid"])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The whole site stands still meanwhile, as a machine that sleeps: nothing is heard."""
        agent = psutil.Process(self._agent)
        agent.suspend()  # first: afterwards its family stays as it is
        family = [
            one for one in agent.children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE
        ]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in (*family, agent):
                process.resume()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its training stands still meanwhile, also one whose worker is only being forked, and so
        does a round that waits for it."""
        for nursery in hands_of(self._agent)[0]:  # first: afterwards it has no more children
            nursery.suspend()
        nurseries, workers = hands_of(self._agent)
        for worker in workers:
            worker.suspend()
        try:
            yield
        finally:
            for one in (*workers, *nurseries):
                with suppress(psutil.NoSuchProcess):  # killed meanwhile
                    one.resume()


def _is_outbox(service: str, lag: str) -> bool:
    return lag == "outbox"


def _is_heard_by_gateway(service: str, lag: str) -> bool:
    return service == "gateway" and lag not in ("outbox", "webhooks")


class Missed(AssertionError):
    """What was to be disturbed is over."""


@dataclass
class Field:
    stack: Stack
    api: Api
    sites: list[Site] = field(default_factory=list)
    n_submitted: int = 0
    traces: Collector | None = None
    theirs: Collector | None = None
    """Where specs may have spans sent."""

    def submit(self, document: dict[str, Any]) -> str:
        self.n_submitted += 1
        key = f"e2e-{os.getpid()}-{self.n_submitted}"
        identity: str = self.api.submit(json.dumps(document).encode(), key)["federation_id"]
        return identity

    def ended(self, federation_id: str, seconds: float = 120.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            try:
                found = self.api.federation(federation_id)
            except Unreachable:  # killed, or its replicas are not known to be back yet
                return None
            return found if found["status"] in ENDED else None

        until(look, f"federation {federation_id} ends", seconds)
        self.heard()
        found: dict[str, Any] = self.api.federation(federation_id)
        return found

    def heard(self) -> None:
        """Until the gateway has heard all that was recorded, which of two services comes in any
        order; what goes on being recorded is not waited for."""
        for is_of in (_is_outbox, _is_heard_by_gateway):
            none_left = set[tuple[str, str]]()

            def look() -> bool:
                lags = {key: lag for key, lag in self._lags().items() if is_of(*key)}  # noqa: B023
                none_left.update(key for key, lag in lags.items() if not lag)  # noqa: B023
                return lags.keys() <= none_left  # noqa: B023

            until(look, "the gateway has heard what was recorded")

    def _lags(self) -> dict[tuple[str, str], int]:
        try:
            services = self.api.get("/services")["services"]
        except Refused:  # a release from before there was such a route
            return {}
        return {
            (service["name"], name): lag
            for service in services
            for replica in service["replicas"]
            for name, lag in replica["lags"].items()
        }

    def completed(self, federation_id: str, seconds: float = 120.0) -> dict[str, Any]:
        found = self.ended(federation_id, seconds)
        assert found["status"] == "completed", found
        return found

    def invite(self, tenant: str, *tags: str) -> str:
        body = {"tenant": tenant, "tags": list(tags)}
        invite: str = self.api.post("/clients/invites", body)["invite"]
        return invite

    async def rows(
        self, service: str, query: str, *arguments: Any, role: str = "reader", tenant: str = ""
    ) -> list[dict[str, Any]]:
        """Straight from a service's Postgres, as its reader or its app role."""
        connection = await asyncpg.connect(self.stack.postgres_dsn(service, role))
        try:
            async with connection.transaction():
                if tenant:
                    await connection.execute(
                        "SELECT set_config('flowerbed.tenant', $1, true)", tenant
                    )
                return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def history(self, service: str, federation_id: str) -> list[dict[str, Any]]:
        """What a service recorded about a federation, in order."""
        rows = await self.rows(
            service,
            "SELECT stream, version, type, data FROM events"
            " WHERE meta->>'correlation_id' = $1 ORDER BY gpos",
            federation_id,
        )
        return [{**row, "data": json.loads(row["data"])} for row in rows]

    def history_now(self, service: str, federation_id: str) -> list[dict[str, Any]]:
        """The same, for who runs in no event loop or must not leave it."""
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(asyncio.run, self.history(service, federation_id)).result()

    def training_round(self, federation_id: str) -> int:
        """The round whose training is open, whatever the gateway has heard; 0 for none."""
        history = self.history_now("orchestrator", federation_id)
        steps = (RoundStarted, RoundEvaluationStarted, RoundCompleted, RoundFailed)
        taken = [one for one in history if one["type"] in {step.type for step in steps}]
        is_open = bool(taken) and taken[-1]["type"] == RoundStarted.type
        return int(taken[-1]["data"]["round_number"]) if is_open else 0

    @contextmanager
    def held_in_round(self, federation_id: str, number: int) -> Iterator[None]:
        """In the middle of that round, or of a later one: it stays open, somebody trains.

        Raises:
            Missed: the federation has ended, and nobody was seen at it.
        """
        site, what = self.sites[0], f"round {number} or a later one trains"

        looked_at = time.monotonic()

        def trains() -> bool:
            nonlocal looked_at
            if site.trains_in(federation_id, number):
                return True
            if time.monotonic() - looked_at > 1:
                history = self.history_now("orchestrator", federation_id)
                if history and history[-1]["type"] == FederationCompleted.type:
                    raise Missed(f"{what}: the federation has completed")
                looked_at = time.monotonic()
            return False

        while True:
            until(trains, what, pause=0.005)
            with site.held():
                time.sleep(0.1)  # it may have been done already: its agent says so then
                if site.training_now(federation_id):
                    until(lambda: self.training_round(federation_id), what)
                    yield
                    return

    @contextmanager
    def submitted_and_held(self, document: dict[str, Any], number: int) -> Iterator[str]:
        """The federation, held in that round; the same once more where it was over too soon."""
        for _ in range(9):
            identity = self.submit(document)
            with suppress(Missed), self.held_in_round(identity, number):
                yield identity
                return
        raise Missed(f"round {number} is too short to be held in")

    def kill(self, service: str) -> int:
        """SIGKILL to a service's process, as the kernel would. Returns the dead pid."""
        pid = process_of(self.stack, service)
        os.kill(pid, signal.SIGKILL)
        return pid

    def is_back(self, service: str, dead: int) -> bool:
        try:
            return process_of(self.stack, service) != dead
        except LookupError:
            return False


def process_of(stack: Stack, service: str) -> int:
    """The running process that has this service's settings file."""
    wanted = f"flowerbed.{service}"
    for process in psutil.process_iter(["cmdline", "environ"]):
        command = process.info["cmdline"] or []
        environment = process.info["environ"] or {}
        settings = environment.get("FLOWERBED_SETTINGS_FILE", "")
        if wanted in command and settings.startswith(str(stack.state_dir)):
            return int(process.pid)
    raise LookupError(f"no process of {service}")


def hospitals(
    field_: Field, data: Path, homes: Path, names: list[str]
) -> Generator[Field, None, None]:
    """Start a runner at each site; stop them all afterwards."""
    traces = field_.traces.http_url if field_.traces is not None else ""
    allowed = field_.theirs.http_url if field_.theirs is not None else ""
    field_.sites = [Site(name, data / name, homes / name, traces, allowed) for name in names]
    starting = [site.start(field_.invite("acme", "hospital")) for site in field_.sites]
    try:
        for process in starting:
            assert process.wait(300) == 0, process.stderr and process.stderr.read()
        yield field_
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Site.stop, field_.sites))
