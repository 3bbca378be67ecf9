"""The worker of an initialization: make or fetch the base checkpoint, verify it, store it.

The app's own code makes it in a process of its own, so torch never sits in the bridge.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flowerbed.aggregator.aggregation import store_tensors
from flowerbed.aggregator.app_process import BUNDLE, check_server_app, fetch_pushed, run_app
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import Closed, CloseExchange, FailExchange, Result
from flowerbed.aggregator.exchange_log import ExchangeLog
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.run_fab import RUNTIME, check_run
from flowerbed.aggregator.scaffold import with_control
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.aggregator.trees import read_model
from flowerbed.artifact.blobs import DigestDiffers, StoreAway, hash_file
from flowerbed.contracts.apps import bundle_uri, is_pushed
from flowerbed.contracts.spec import Spec
from flowerbed.contracts.strategies import SCAFFOLD, TREES
from flowerbed.contracts.trace import of_exchange
from flowerbed.contracts.values import ArtifactRef, Sha256
from flowerbed.events.errors import Rejected, Unavailable
from flowerbed.events.telemetry import span
from flowerbed.events.wakeup import Wakeup
from flowerbed.flower_apps.forms import travels

logger = logging.getLogger(__name__)

FIRST_WAIT, LAST_WAIT = 0.2, 10.0


class NothingTrains(Rejected):
    """`update.trainable` names none of the model's tensors."""

    code: ClassVar[str] = "nothing-trainable"


class NoSimulation(Rejected):
    code: ClassVar[str] = "no-simulation"


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
            checkpoint = await self._base()
            sha256 = checkpoint.sha256
            opened.set_attribute("sha256", sha256)
            close = CloseExchange(
                terms=terms,
                at=self.bridge.clock(),
                result=Result(places=(), checkpoint=checkpoint),
            )
            await self.log.record([(close, self.asked.context)])

    async def _base(self) -> ArtifactRef:
        """The base checkpoint, stored; a whole ServerApp starts from its bundle."""
        bridge, asked = self.bridge, self.asked
        await check_runtime(bridge, asked, self.folder)
        if asked.spec.spec.is_whole:
            await check_server_app(bridge, asked, self.folder)
            uri = bundle_uri(bridge.bucket, asked.context.tenant, asked.created.code_hash)
            size = (self.folder / BUNDLE).stat().st_size
            return ArtifactRef(uri=uri, sha256=asked.created.code_hash, size=size)
        path, sha256 = await make_base(bridge, asked, self.folder)
        to = asked.spec.spec.artifacts
        return await asyncio.to_thread(store_tensors, bridge, to, path, sha256)

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


async def check_runtime(bridge: Bridge, asked: Asked, folder: Path) -> None:
    """Can the federation's messages travel as its spec says? Asked once, when it begins.

    Raises:
        NoSuperLink, NoSimulation: not from here.
        AppFailed, NotFound: its app cannot run so.
    """
    runtime = asked.spec.spec.runtime
    if runtime == RUNTIME:
        await check_run(bridge, asked, folder)
    if runtime == "simulation" and not bridge.runs_simulations:
        raise NoSimulation("this control plane runs no simulations: its operator switched them off")


async def make_base(bridge: Bridge, asked: Asked, folder: Path) -> tuple[Path, Sha256]:
    """The base checkpoint's file and digest: the same for the same spec, whenever it is made.

    Raises:
        CodeDiffers: the app's code here is not the code that the federation was created with.
        AppFailed: the app could not make its initial checkpoint.
        DigestDiffers: the spec names another digest.
        AppNotRun: the operator lets no app run here that was pushed.
        NothingTrains: none of its tensors is one that the spec has trained.
        NotSafetensors, DtypeNotFolded, NotTrees, NotFound: the model or app that the spec names is
            no use.
    """
    if asked.spec.spec.is_whole:
        await fetch_pushed(bridge, asked, folder)
        return folder / BUNDLE, asked.created.code_hash
    model, path = asked.spec.spec.model_ref, folder / "base.safetensors"
    assert model is not None
    if model.uri.startswith("s3://"):
        if is_pushed(asked.spec.spec.app):
            await fetch_pushed(bridge, asked, folder)  # or no site will find it either
        await asyncio.to_thread(bridge.blobs.download, model.uri, path, sha256=model.sha256)
    else:
        await run_app(bridge, asked, folder, path)
    sha256 = await asyncio.to_thread(_verified, path, asked.spec.spec, model.sha256)
    if asked.spec.spec.strategy.name != SCAFFOLD:
        return path, sha256
    return await asyncio.to_thread(with_control, path, folder / "with-control.safetensors")


def _verified(path: Path, spec: Spec, wanted: Sha256 | None) -> Sha256:
    trainable = spec.update.trainable
    with TensorFile(path) as base:
        if spec.strategy.name in TREES:
            read_model(base)
        if not any(travels(name, trainable) for name in base.tensors):
            known = ", ".join(sorted(base.tensors)[:5])
            raise NothingTrains(
                f"no tensor of the base is called {' or '.join(trainable)}: it has {known}, …"
            )
    sha256 = hash_file(path)
    if wanted is not None and sha256 != wanted:
        raise DigestDiffers(f"the base checkpoint has sha256 {sha256}, model_ref says {wanted}")
    return sha256
