"""A strategy that a researcher brought, driven by our rounds: `strategy.custom` of a spec.

Its code runs in a process of its own (`flower_apps.aggregate_own`), once at each exchange's end,
with the base and the accepted updates in cohort order. What it keeps goes from round to round as
the optimizers' moments do, so the same log gives the same bytes.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from flowerbed.aggregator.app_process import run_strategy
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.checkpoints import rounded
from flowerbed.aggregator.fold import Source
from flowerbed.aggregator.kept import moments_with
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.spool import Spool
from flowerbed.aggregator.tensors import TensorFile, write
from flowerbed.artifact.blobs import hash_file
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import Sha256
from flowerbed.events.errors import Rejected

logger = logging.getLogger(__name__)

AT_ONCE = 4


class ArraysDiffer(Rejected):
    code: ClassVar[str] = "strategy-arrays"


class Driven:
    """The updates of a training, and what the strategy made of them.

    `metrics`: what it says of the round; None where it says nothing.
    """

    def __init__(self, bridge: Bridge, asked: Asked, source: Source, folder: Path) -> None:
        self.metrics: dict[str, float] | None = None
        self.updates: list[UpdateAccepted] = []
        self._bridge = bridge
        self._asked = asked
        self._source = source
        self._folder = folder
        self._is_done = False

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(update.place for update in self.updates)

    def extend(self, updates: list[UpdateAccepted]) -> None:
        """Those of `updates` that are not in yet; what is in must be how they begin."""
        self.updates += updates[len(self.updates) :]

    async def drive(self, base: Path, before: Path | None, after: Path) -> None:
        """Have the strategy aggregate; once it has, this does nothing.

        Raises:
            AppFailed: its code broke, or cannot be driven.
        """
        if self._is_done:
            return
        files = await asyncio.to_thread(self._fetched)
        told = [
            {**_said(update), "arrays": str(file)}
            for update, file in zip(self.updates, files, strict=True)
        ]
        self.metrics = await drive(
            self._bridge, self._asked, self._folder, told, base=base, before=before, after=after
        )
        self._is_done = True

    def _fetched(self) -> list[Path]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._source.fetch, self.updates))

    def write(self, path: Path, base: TensorFile, after: Path) -> tuple[Sha256, Sha256 | None]:
        """Write the checkpoint: the base's own where the strategy gave none. Its digest, and that
        of what the strategy keeps, if it keeps anything.

        Raises:
            ArraysDiffer: the strategy gave other arrays than the base has.
            MeanNotFinite: a value does not fit the base's type.
        """
        made = self._folder / "arrays.safetensors"
        if made.exists():
            with TensorFile(made) as arrays:
                _check(arrays, base)
                sha256, _ = write(
                    path, base.tensors, lambda one: rounded(one, arrays.blocks(one.name))
                )
        else:
            sha256, _ = write(path, base.tensors, lambda one: base.blocks(one.name))
        return sha256, hash_file(after) if after.exists() else None


async def drive(
    bridge: Bridge,
    asked: Asked,
    folder: Path,
    replies: Sequence[dict[str, Any]],
    *,
    base: Path,
    before: Path | None,
    after: Path,
) -> dict[str, float] | None:
    """Have the spec's strategy aggregate these replies; the metrics that it gives."""
    started = asked.started
    assert started is not None
    path = folder / "said.json"
    job = {
        "order": started.config,
        "seed": started.seed,
        "exchange": asked.terms.exchange,
        "round_number": started.round_number,
        "base": str(base),
        "replies": list(replies),
        "state": None if before is None else str(before),
        "arrays": str(folder / "arrays.safetensors"),
        "kept": str(after),
        "said": str(path),
    }
    await run_strategy(bridge, asked, folder, job)
    said = json.loads(await asyncio.to_thread(path.read_text))
    if said["forgets"]:
        logger.warning(
            "%s forgets what aggregate_evaluate keeps: only trainings are carried on",
            asked.terms.stream,
        )
    metrics: dict[str, float] | None = said["metrics"]
    return metrics


async def evaluate(
    bridge: Bridge, asked: Asked, folder: Path, updates: Sequence[UpdateAccepted]
) -> dict[str, float] | None:
    """Have the spec's strategy aggregate an evaluation of the round's new checkpoint."""
    spool, told = Spool(bridge.blobs, folder), [_said(update) for update in updates]
    assert asked.started is not None
    kept = await moments_with(bridge, asked, asked.started.round_number)
    base = await asyncio.to_thread(spool.base, asked.started.base)
    before = None if kept is None else await asyncio.to_thread(spool.base, kept)
    return await drive(bridge, asked, folder, told, base=base, before=before, after=folder / "-")


def _said(update: UpdateAccepted) -> dict[str, Any]:
    return {
        "place": update.place,
        "n_examples": update.n_examples,
        "metrics": update.metrics,
    }


def _check(made: TensorFile, base: TensorFile) -> None:
    shapes = {name: tensor.shape for name, tensor in made.tensors.items()}
    wanted = {name: tensor.shape for name, tensor in base.tensors.items()}
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise ArraysDiffer(
                f"the strategy gave {name} {shapes.get(name)}, the base has {wanted.get(name)}"
            )
