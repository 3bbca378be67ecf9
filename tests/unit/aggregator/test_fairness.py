"""q-FedAvg: what Flower's own makes of the same updates and losses."""

from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import QFedAvg
from safetensors.numpy import load_file

from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.fairness import LossUnknown, fair_weight, share_of_step
from flowerbed.aggregator.fold import Fold
from flowerbed.aggregator.optimizers import Moments
from flowerbed.aggregator.screening import Limits, screen_file
from flowerbed.aggregator.strategies import strategy_of, weight_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy as StrategySpec
from flowerbed.contracts.update import UpdateAccepted
from tests.support import flower
from tests.support.models import Model, stored

LOSSES = (0.9, 0.1, 2.5)
RATE = 0.05


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, update: UpdateAccepted) -> Path:
        return self.path / update.client_id

    def fetch_base(self, base: object) -> Path:
        raise AssertionError("unreachable")

    def drop(self, update: UpdateAccepted) -> None:
        pass


def accepted(place: int, loss: float | None, norm: float = 1.0) -> UpdateAccepted:
    return UpdateAccepted(
        federation_id="fed-1", round_number=1, attempt=1, exchange="train",
        client_id=f"u{place}", work_id=f"u{place}", place=place, artifact=None, n_examples=10,
        metrics={} if loss is None else {"train-loss": loss}, norm=norm,
    )  # fmt: skip


def folded(folder: Path, q: float, base: Model, updates: list[Model]) -> Model:
    """As the bridge goes about it: screened, folded, finished."""
    spec, at = StrategySpec(name="qfedavg", params={"q": q}), stored(folder / "base", base)
    known = []
    for place, update in enumerate(updates):
        norm = screen_file(stored(folder / f"u{place}", update), at, Limits())
        known.append(accepted(place, LOSSES[place], norm))
    fold = Fold(at, Folder(folder), weigh=weight_of(spec))
    fold.extend(known)
    with TensorFile(at) as first:
        strategy = strategy_of(spec, 1, fold.updates, RATE)
        moments = Moments(None, folder / "moments")
        tensors, kept = strategy.finish(fold.accumulator.mean(), first, moments)
        write_checkpoint(folder / "out", first.tensors, tensors)
    assert kept is None
    return load_file(folder / "out")


@pytest.mark.parametrize("q", [0, 0.1, 1, 3.5])
def test_it_gives_what_flowers_own_gives(tmp_path: Path, q: float) -> None:
    dice = np.random.default_rng(1)
    base: Model = {name: dice.standard_normal((7, 5)).astype(np.float32) for name in "ab"}
    updates: list[Model] = [
        {name: base[name] + np.float32(0.1) * dice.standard_normal((7, 5)).astype(np.float32)
         for name in base}
        for _ in LOSSES
    ]  # fmt: skip
    theirs = QFedAvg(client_learning_rate=RATE, q=q, train_loss_key="train-loss")
    losses = [{"train-loss": loss} for loss in LOSSES]
    wanted = flower.aggregate(theirs, base, updates, [1, 1, 1], metrics=losses)
    for name, array in folded(tmp_path, q, base, updates).items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=1e-6)


def test_at_q_0_it_is_the_mean_of_all_alike() -> None:
    updates = [accepted(place, loss) for place, loss in enumerate(LOSSES)]
    assert [fair_weight(update, 0) for update in updates] == [1, 1, 1]
    assert share_of_step(updates, 0, RATE) == pytest.approx(1)


def test_who_does_badly_weighs_more() -> None:
    weights = [fair_weight(accepted(0, loss), 2) for loss in (0.1, 1, 3)]
    assert weights == pytest.approx([0.01, 1, 9], rel=1e-6)
    assert fair_weight(accepted(0, 0.0), 2) > 0


@pytest.mark.parametrize(("loss", "found"), [(None, "none"), (-1.0, "-1")])
def test_an_update_without_a_loss_is_refused(loss: float | None, found: str) -> None:
    with pytest.raises(LossUnknown, match=f"weighs by train-loss: u0 reported {found}, at least"):
        fair_weight(accepted(0, loss), 1)
