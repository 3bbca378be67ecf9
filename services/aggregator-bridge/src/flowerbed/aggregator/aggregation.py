"""A round's fold, from the base to the stored checkpoint and state. Everything here blocks."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.decider import Result
from flowerbed.aggregator.fold import Fold, write_checkpoint
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.quorum import Answers, Terms, due_for_fold, in_fold_order
from flowerbed.aggregator.spool import Spool
from flowerbed.aggregator.strategies import StrategyState, strategy_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.spec import Artifacts
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef, Sha256

N_KEPT = 32
"""Early updates kept in the spool, so that its size does not grow with the cohort."""


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint and the strategy's state, written but not stored."""

    checkpoint: Path
    sha256: Sha256
    state: bytes


@dataclass(slots=True)
class Aggregation:
    """Of one exchange. `seconds` is the time spent working, not waiting for clients."""

    bridge: Bridge
    asked: Asked
    spool: Spool
    base: Path
    seconds: float = 0.0
    fold: Fold = field(init=False)
    _made: Made | None = field(default=None, init=False)
    _late_bases: list[Sha256] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.fold = Fold(self.base, self, self.asked.terms.staleness_exponent)

    def advance(self, answers: Answers, terms: Terms) -> None:
        """Fold as far as no answer to come can change it."""
        began = time.perf_counter()
        self.fold.extend(due_for_fold(answers, terms))
        self._trim(in_fold_order(answers, terms))
        self.seconds += time.perf_counter() - began

    def finish(self, answers: Answers, terms: Terms) -> Result:
        """Fold what is left, and store. Where storing fails it may be called again."""
        began = time.perf_counter()
        self.fold.extend(in_fold_order(answers, terms))
        if self._made is None:
            self._made = self.make()
        result = self._store(self._made)
        self.seconds += time.perf_counter() - began
        return result

    def make(self) -> Made:
        """Turn what was folded into the new checkpoint."""
        started, spec = self.asked.started, self.asked.spec.spec
        assert started is not None
        before = StrategyState(
            strategy=spec.strategy.name,
            params=spec.strategy.params,
            round_number=started.round_number,
            seed=started.seed,
            base=started.base.sha256,
        )
        path = self.spool.folder / "checkpoint.safetensors"
        with TensorFile(self.base) as base:
            mean = self.fold.accumulator.mean()
            tensors, after = strategy_of(spec.strategy).finish(mean, base, before)
            sha256, _ = write_checkpoint(path, base.tensors, tensors)
        return Made(path, sha256, after.resulting_in(sha256).encode())

    def _store(self, made: Made) -> Result:
        started, to = self.asked.started, self.asked.spec.spec.artifacts
        assert started is not None
        state, sha256 = self.spool.folder / "state.json", hashlib.sha256(made.state).hexdigest()
        state.write_bytes(made.state)
        with ThreadPoolExecutor(1) as beside:
            key = f"{to.prefix}/{sha256}.json"
            storing = beside.submit(self.bridge.blobs.put_if_absent, to.bucket, key, state, sha256)
            checkpoint = store_checkpoint(self.bridge, to, made.checkpoint, made.sha256)
            return Result(
                places=self.fold.places,
                checkpoint=checkpoint,
                state=storing.result(),
                parents=(started.base.sha256, *self._late_bases),
            )

    # --- the fold's source -----------------------------------------------------------------

    def fetch(self, update: UpdateAccepted) -> Path:
        """The update's file: from the spool if it was just screened, else from S3 again."""
        path = self.spool.update(update.work_id)
        if not path.exists():
            assert update.artifact is not None
            self.bridge.transport.fetch(update.artifact, path)
        return path

    def fetch_base(self, base: ArtifactRef) -> Path:
        if base.sha256 not in self._late_bases:
            self._late_bases.append(base.sha256)
        return self.spool.base(base)

    def drop(self, update: UpdateAccepted) -> None:
        self.spool.update(update.work_id).unlink(missing_ok=True)

    def _trim(self, updates: list[UpdateAccepted]) -> None:
        """Of the updates that wait, keep the next few here; the others wait in S3."""
        for update in updates[len(self.fold.places) + N_KEPT :]:
            self.drop(update)


def store_checkpoint(bridge: Bridge, to: Artifacts, path: Path, sha256: Sha256) -> ArtifactRef:
    key = f"{to.prefix}/{sha256}.safetensors"
    return bridge.blobs.put_if_absent(to.bucket, key, path, sha256)
