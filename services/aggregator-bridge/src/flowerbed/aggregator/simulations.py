"""One process an open federation with virtual clients: started, started again, ended.

The process holds nothing that is not open work in the lease service, so it may be killed at any
moment; what apps remember in their contexts' state is lost with it. It and all that Ray starts
are one process group.
"""

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from flowerbed.aggregator.app_process import environment
from flowerbed.aggregator.projections.exchanges import open_federations
from flowerbed.aggregator.simulation.assignment import OVER, Assignment
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.simulation import LOCAL
from flowerbed.contracts.topology import PARTITIONS, partition
from flowerbed.events.database import Database
from flowerbed.events.errors import Unavailable
from flowerbed.events.logs import about
from flowerbed.events.wakeup import Wakeup

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
FIRST_WAIT, LAST_WAIT = 0.5, 30.0
STABLE_SECONDS = 60.0
"""A process that ran so long is started again at once."""
LONGEST_LINE = 1000
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""With it Ray listens on loopback alone, and finds a cluster there: it has no other switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What every simulation is told. `spool` belongs to this service's process alone."""

    lease_urls: tuple[str, ...]
    internal_token: SecretStr
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: SecretStr
    bucket: str
    spool: Path
    runs_pushed_apps: bool

    def assignment(self, tenant: str, created: FederationCreated) -> Assignment:
        name = hashlib.sha256(created.federation_id.encode()).hexdigest()[:8]
        return Assignment(
            federation_id=created.federation_id,
            tenant=tenant,
            spec=created.federation_spec,
            code_hash=created.code_hash,
            lease_urls=self.lease_urls,
            internal_token=self.internal_token.get_secret_value(),
            s3_endpoint=self.s3_endpoint,
            s3_access_key=self.s3_access_key,
            s3_secret_key=self.s3_secret_key.get_secret_value(),
            bucket=self.bucket,
            folder=self.spool / f"simulation-{name}",
            ray_folder=self.ray_folders / name,
            runs_pushed_apps=self.runs_pushed_apps,
        )

    @property
    def ray_folders(self) -> Path:
        """Ray's sockets are in there: the state directory's own path may be too long for them."""
        digest = hashlib.sha256(os.fsencode(self.spool)).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"fb-ray-{os.geteuid()}-{digest}"


@dataclass(slots=True)
class Simulations:
    """Those of every partition; each is at work where it is led."""

    database: Database
    ground: Ground
    _wakeups: tuple[Wakeup, ...] = field(
        default_factory=lambda: tuple(Wakeup() for _ in range(PARTITIONS))
    )

    def wake(self, federation_id: str) -> None:
        """It was created, or has ended."""
        self._wakeups[partition(federation_id)].wake()

    async def run(self, number: int) -> None:
        """One partition, until cancelled. Only one replica does this at a time."""
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    found = await open_federations(self.database, "simulation")
                except Unavailable as error:
                    logger.warning("simulations cannot be looked for: %s", error)
                    await asyncio.sleep(FIRST_WAIT)
                    continue
                ours = {
                    created.federation_id: (tenant, created)
                    for tenant, created in found
                    if partition(created.federation_id) == number
                }
                for federation_id in [one for one, task in running.items() if task.done()]:
                    broke = running.pop(federation_id).exception()
                    logger.warning("%s will be simulated again: %r", federation_id, broke)
                for federation_id in running.keys() - ours.keys():
                    await _ended([running.pop(federation_id)])
                for federation_id in ours.keys() - running.keys():
                    with about(federation_id):
                        tending = self._tend(*ours[federation_id])
                        running[federation_id] = asyncio.create_task(tending)
                await self._wakeups[number].wait(LOOK_SECONDS)
        finally:
            await _ended(list(running.values()))

    async def _tend(self, tenant: str, created: FederationCreated) -> None:
        """Until cancelled: the process, and another when it has ended."""
        assignment, wait = self.ground.assignment(tenant, created), FIRST_WAIT
        while True:
            began = time.monotonic()
            code = await run_process(assignment)
            if time.monotonic() - began > STABLE_SECONDS:
                wait = FIRST_WAIT
            if code != OVER:
                logger.warning("the simulation ended with %s: again in %.1f s", code, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_WAIT)


async def run_process(assignment: Assignment) -> int:
    """One life of a simulation's process; cancelled, it ends with everything it has started."""
    folders = (assignment.folder, assignment.ray_folder)
    await asyncio.to_thread(_make_anew, folders)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "flowerbed.aggregator.simulation",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environment(), **RAY, **_loopback(assignment)},
        cwd=assignment.folder,
        start_new_session=True,
        limit=1 << 20,
    )  # fmt: skip
    listening = asyncio.create_task(_listen(process.stdout, logger.info))
    try:
        assert process.stdin is not None
        process.stdin.write(assignment.model_dump_json().encode() + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
        return await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        listening.cancel()
        for folder in folders:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _loopback(assignment: Assignment) -> dict[str, str]:
    host = assignment.simulation.ray_address.partition(":")[0]
    return LOOPBACK if host in (LOCAL, "localhost", "127.0.0.1") else {}


async def _listen(out: asyncio.StreamReader | None, say: Callable[[str, str], None]) -> None:
    """What it and its apps write goes into the service's own log."""
    assert out is not None
    while True:
        try:
            line = await out.readline()
        except ValueError:  # longer than the limit
            continue
        if not line:
            return
        say("simulation: %s", line.decode(errors="replace").rstrip()[:LONGEST_LINE])


async def _ended(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _make_anew(folders: Sequence[Path]) -> None:
    """Empty, and nobody else's: one of them lies where anyone may write."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.parent.stat().st_uid != os.geteuid() or folder.parent.is_symlink():
            raise PermissionError(f"{folder.parent} belongs to another user")
        folder.mkdir(mode=0o700)
