"""A round's fold, from the base to the stored checkpoint and state. Everything here blocks."""

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.decider import Result
from flowerbed.aggregator.driven import Driven
from flowerbed.aggregator.fold import Fold
from flowerbed.aggregator.optimizers import Moments
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.quorum import Answers, Terms, due_for_fold, in_fold_order
from flowerbed.aggregator.robust import Together, rule_of
from flowerbed.aggregator.spool import Spool
from flowerbed.aggregator.strategies import StrategyState, strategy_of, weight_of
from flowerbed.aggregator.tensors import TensorFile, stamp
from flowerbed.contracts.forms import FROZEN
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
    moments: Path
    state: StrategyState
    selected: tuple[int, ...] | None


@dataclass(slots=True)
class Aggregation:
    """Of one exchange. `seconds` is the time spent working, not waiting for clients.

    `moments`: what the strategy kept with the base.
    """

    bridge: Bridge
    asked: Asked
    spool: Spool
    base: Path
    moments: ArtifactRef | None = None
    seconds: float = 0.0
    fold: Fold | Together | Driven = field(init=False)
    _made: Made | None = field(default=None, init=False)
    _late_bases: list[Sha256] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        strategy = self.asked.spec.spec.strategy
        if strategy.custom is not None:
            self.fold = Driven(self.bridge, self.asked, self, self.spool.folder)
        elif (rule := rule_of(strategy)) is not None:
            self.fold = Together(strategy, rule, self)
        else:
            exponent, weigh = self.asked.terms.staleness_exponent, weight_of(strategy)
            self.fold = Fold(self.base, self, exponent, weigh)

    def advance(self, answers: Answers, terms: Terms) -> None:
        """Fold as far as no answer to come can change it."""
        began = time.perf_counter()
        self.fold.extend(due_for_fold(answers, terms))
        self._trim(in_fold_order(answers, terms))
        self.seconds += time.perf_counter() - began

    async def drive(self, updates: list[UpdateAccepted]) -> None:
        """Where the strategy is one of somebody's own, have it aggregate, before `finish`."""
        if isinstance(self.fold, Driven):
            began = time.perf_counter()
            self.fold.extend(updates)
            before = None
            if self.moments is not None:
                before = await asyncio.to_thread(self.spool.file, self.moments)
            await self.fold.drive(self.base, before, self._after)
            self.seconds += time.perf_counter() - began

    @property
    def metrics(self) -> dict[str, float] | None:
        """What the strategy says of the round, if it is one that says something."""
        return self.fold.metrics if isinstance(self.fold, Driven) else None

    @property
    def _after(self) -> Path:
        return self.spool.folder / "moments.safetensors"

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
        started, spec = self.asked.started, self.asked.spec.spec.strategy
        assert started is not None
        path, after = self.spool.folder / "checkpoint.safetensors", self._after
        # Before the sums become the mean: where this fails, all may be tried again.
        before = None if self.moments is None else self.spool.file(self.moments)
        with TensorFile(self.base) as base:
            if isinstance(self.fold, Together):
                sha256, moments = self.fold.write(path, base), None
            elif isinstance(self.fold, Driven):
                sha256, moments = self.fold.write(path, base, after)
            else:
                rate = self.asked.spec.spec.train.learning_rate
                n_clients = round(len(started.cohort) / self.asked.spec.spec.client_fraction)
                updates = self.fold.updates
                strategy = strategy_of(spec, started.round_number, updates, rate, n_clients)
                mean = self.fold.accumulator.mean()
                tensors, moments = strategy.finish(mean, base, Moments(before, after))
                sha256, _ = write_checkpoint(path, base.tensors, tensors)
        if (frozen := self._frozen) is not None:
            sha256 = stamp(path, {FROZEN: frozen})
        state = StrategyState(
            strategy=spec.name,
            params=spec.params,
            round_number=started.round_number,
            seed=started.seed,
            base=started.base.sha256,
            checkpoint=sha256,
            moments=moments,
            custom=spec.custom,
        )
        selected = self.fold.selected if isinstance(self.fold, Together) else None
        return Made(path, sha256, after, state, selected)

    @property
    def _frozen(self) -> Sha256 | None:
        """Which base has the tensors that the checkpoint has not; None where it has all."""
        started = self.asked.started
        assert started is not None
        return (started.frozen or started.base).sha256 if self.spool.trainable else None

    def _store(self, made: Made) -> Result:
        started, to = self.asked.started, self.asked.spec.spec.artifacts
        assert started is not None
        state, encoded = self.spool.folder / "state.json", made.state.encode()
        sha256, kept = hashlib.sha256(encoded).hexdigest(), made.state.moments
        state.write_bytes(encoded)
        with ThreadPoolExecutor(2) as beside:
            key = f"{to.prefix}/{sha256}.json"
            storing = beside.submit(self.bridge.blobs.put_if_absent, to.bucket, key, state, sha256)
            moments = kept and beside.submit(store_tensors, self.bridge, to, made.moments, kept)
            checkpoint = store_tensors(self.bridge, to, made.checkpoint, made.sha256)
            return Result(
                places=self.fold.places,
                checkpoint=checkpoint,
                state=storing.result(),
                parents=self._parents(started.base.sha256),
                moments=moments.result() if moments else None,
                selected=made.selected,
            )

    def _parents(self, base: Sha256) -> tuple[Sha256, ...]:
        frozen = () if self._frozen is None else (self._frozen,)
        return tuple(dict.fromkeys((base, *self._late_bases, *frozen)))

    # --- the fold's source -----------------------------------------------------------------

    def fetch(self, update: UpdateAccepted) -> Path:
        """The update's file: from the spool if it was just screened, else from S3 again."""
        path = self.spool.update(update.work_id)
        if not path.exists():
            assert update.artifact is not None
            assert self.asked.started is not None
            base = update.base or self.asked.started.base
            self.spool.fetch(self.bridge.transport, update.work_id, update.artifact, base)
        return path

    def fetch_base(self, base: ArtifactRef) -> Path:
        if base.sha256 not in self._late_bases:
            self._late_bases.append(base.sha256)
        return self.spool.base(base)

    def drop(self, update: UpdateAccepted) -> None:
        self.spool.update(update.work_id).unlink(missing_ok=True)

    def _trim(self, updates: list[UpdateAccepted]) -> None:
        """Of the updates that wait, keep the next few here; the others wait in S3. Those that are
        compared with each other are all needed at once in the end."""
        if not isinstance(self.fold, Fold):
            return
        for update in updates[len(self.fold.places) + N_KEPT :]:
            self.drop(update)


def store_tensors(bridge: Bridge, to: Artifacts, path: Path, sha256: Sha256) -> ArtifactRef:
    key = f"{to.prefix}/{sha256}.safetensors"
    return bridge.blobs.put_if_absent(to.bucket, key, path, sha256)
