"""The worker of an initialization: make or fetch the base checkpoint, verify it, store it.

The app's own code makes it in a process of its own, so torch never sits in the bridge.
"""

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flowerbed.aggregator.aggregation import store_tensors
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import Closed, CloseExchange, FailExchange, Result
from flowerbed.aggregator.exchange_log import ExchangeLog
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.artifact.blobs import DigestDiffers, StoreAway, hash_file
from flowerbed.contracts.trace import of_exchange
from flowerbed.contracts.values import Sha256
from flowerbed.events.errors import Rejected, Unavailable
from flowerbed.events.telemetry import span
from flowerbed.events.wakeup import Wakeup
from flowerbed.flower_apps.registry import code_hash

logger = logging.getLogger(__name__)

FIRST_WAIT, LAST_WAIT = 0.2, 10.0
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")


class CodeDiffers(Rejected):
    code: ClassVar[str] = "code-hash"


class AppFailed(Rejected):
    code: ClassVar[str] = "app-failed"


@dataclass(slots=True)
class Initializing:
    bridge: Bridge
    asked: Asked
    log: ExchangeLog
    folder: Path
    wakeup: Wakeup

    async def run(self) -> None:
        await self.log.load()
        wait = FIRST_WAIT
        while not isinstance(self.log.state, Closed):
            try:
                await self._close()
            except Unavailable as error:
                logger.warning("%s waits: %s", self.asked.terms.stream, error)
                if isinstance(error, StoreAway):
                    await self._give_up_on(error)
                await self.wakeup.wait(wait)
                wait = min(wait * 2, LAST_WAIT)

    async def _close(self) -> None:
        terms = self.asked.terms
        under = of_exchange(terms.federation_id, 0, terms.attempt, terms.exchange)
        with span("initialize", self.asked.context, under=under, round_num=0) as opened:
            path, sha256 = await make_base(self.bridge, self.asked, self.folder)
            to = self.asked.spec.spec.artifacts
            checkpoint = await asyncio.to_thread(store_tensors, self.bridge, to, path, sha256)
            opened.set_attribute("sha256", sha256)
            close = CloseExchange(
                terms=terms,
                at=self.bridge.clock(),
                result=Result(places=(), checkpoint=checkpoint),
            )
            await self.log.record([(close, self.asked.context)])

    async def _give_up_on(self, error: StoreAway) -> None:
        """Nobody waits for the base checkpoint after the deadline to join."""
        terms = self.asked.terms
        if self.bridge.clock() < terms.deadline_at:
            return
        fail = FailExchange(terms=terms, code="store-unavailable", reason=str(error))
        try:
            await self.log.record([(fail, self.asked.context)])
        except Unavailable as unavailable:
            logger.info("%s cannot be failed yet: %s", terms.stream, unavailable)


async def make_base(bridge: Bridge, asked: Asked, folder: Path) -> tuple[Path, Sha256]:
    """The base checkpoint's file and digest: the same for the same spec, whenever it is made.

    Raises:
        CodeDiffers: the app's code here is not the code that the federation was created with.
        AppFailed: the app could not make its initial checkpoint.
        DigestDiffers: the spec names another digest.
        NotSafetensors, DtypeNotFolded, NotFound: the model that the spec names is no use.
    """
    model, path = asked.spec.spec.model_ref, folder / "base.safetensors"
    if model.uri.startswith("s3://"):
        await asyncio.to_thread(bridge.blobs.download, model.uri, path, sha256=model.sha256)
    else:
        await _run_app(bridge, asked, path)
    return path, await asyncio.to_thread(_verified, path, model.sha256)


async def _run_app(bridge: Bridge, asked: Asked, path: Path) -> None:
    app = asked.spec.spec.app.removeprefix("builtin:")
    here = await asyncio.to_thread(code_hash, app)
    if here != asked.created.code_hash:
        raise CodeDiffers(f"app {app} has code {here} here, {asked.created.code_hash} is asked")
    train = asked.spec.spec.train
    config = {key.replace("_", "-"): value for key, value in train.app_parameters.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowerbed.flower_apps.initialize",
        "--app", app, "--seed", str(train.seed), "--out", str(path),
        "--config", json.dumps(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # The app's code needs nothing of ours: no settings file, no token.
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )  # fmt: skip
    try:
        async with asyncio.timeout(bridge.initialize_timeout.total_seconds()):
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise AppFailed(f"app {app} made no checkpoint in time") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise AppFailed(f"app {app} ended with {process.returncode}: {last[:500]}")


def _verified(path: Path, wanted: Sha256 | None) -> Sha256:
    with TensorFile(path):
        pass
    sha256 = hash_file(path)
    if wanted is not None and sha256 != wanted:
        raise DigestDiffers(f"the base checkpoint has sha256 {sha256}, model_ref says {wanted}")
    return sha256
