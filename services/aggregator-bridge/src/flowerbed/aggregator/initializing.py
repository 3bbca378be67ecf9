"""The worker of an initialization: make or fetch the base checkpoint, verify it, store it.

The app's own code makes it in a process of its own, so torch never sits in the bridge.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from flowerbed.aggregator.aggregation import store_tensors
from flowerbed.aggregator.app_process import fetch_pushed, run_app
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import Closed, CloseExchange, FailExchange, Result
from flowerbed.aggregator.exchange_log import ExchangeLog
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.run_fab import RUNTIME, check_run
from flowerbed.aggregator.scaffold import with_control
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.aggregator.trees import read_model
from flowerbed.artifact.blobs import DigestDiffers, StoreAway, hash_file
from flowerbed.contracts.apps import is_pushed
from flowerbed.contracts.spec import Spec
from flowerbed.contracts.strategies import SCAFFOLD, TREES
from flowerbed.contracts.trace import of_exchange
from flowerbed.contracts.values import Sha256
from flowerbed.events.errors import Rejected, Unavailable
from flowerbed.events.telemetry import span
from flowerbed.events.wakeup import Wakeup
from flowerbed.flower_apps.forms import travels

logger = logging.getLogger(__name__)

FIRST_WAIT, LAST_WAIT = 0.2, 10.0


class NothingTrains(Rejected):
    """`update.trainable` names none of the model's tensors."""

    code: ClassVar[str] = "nothing-trainable"


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
        NoSuperLink: the spec needs one, and there is none.
        AppNotRun: the operator lets no app run here that was pushed.
        NothingTrains: none of its tensors is one that the spec has trained.
        NotSafetensors, DtypeNotFolded, NotTrees, NotFound: the model or app that the spec names is
            no use.
    """
    if asked.spec.spec.runtime == RUNTIME:
        await check_run(bridge, asked, folder)
    model, path = asked.spec.spec.model_ref, folder / "base.safetensors"
    if model.uri.startswith("s3://"):
        if is_pushed(asked.spec.spec.app):
            await fetch_pushed(bridge, asked, folder)  # or no site will find it either
        await asyncio.to_thread(bridge.blobs.download, model.uri, path, sha256=model.sha256)
    else:
        await run_app(bridge, asked, folder, path)
    sha256 = await asyncio.to_thread(_verified, path, asked.spec.spec)
    if asked.spec.spec.strategy.name != SCAFFOLD:
        return path, sha256
    return await asyncio.to_thread(with_control, path, folder / "with-control.safetensors")


def _verified(path: Path, spec: Spec) -> Sha256:
    trainable, wanted = spec.update.trainable, spec.model_ref.sha256
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
