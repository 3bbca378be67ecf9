"""The model, and what stands in for its training.

The model is `elements` float32 in all, spread over `tensors` tensors. Training reads no data: it
moves every weight by a small step that is drawn from the seed. The same arrays and settings give
the same bytes. One tensor at a time is taken from what came in and put into what goes out, so
that little more than one model is held.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

BLOCK = 65_536
"""Elements a block: one block of steps serves a whole tensor, so drawing them costs nothing."""

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server decides about one client's training in one round.

    `client`: what sets it apart from the others where their seeds do not.
    """

    train_seconds: float
    n_examples: int
    learning_rate: float
    seed: int
    client: int = 0

    @classmethod
    def read(cls, config: Mapping[str, object], client: int = 0) -> "Settings":
        return cls(
            train_seconds=float(str(config["train-seconds"])),
            n_examples=int(str(config["batch-size"])),
            learning_rate=float(str(config["learning-rate"])),
            seed=int(str(config["seed"])),
            client=client,
        )


def initial_arrays(run_config: dict[str, bool | float | int | str]) -> ArrayRecord:
    """The model every site starts from; the same seed gives the same bytes."""
    elements, tensors = int(run_config["elements"]), int(run_config["tensors"])
    if not 1 <= tensors <= elements:
        raise ValueError(f"{elements} elements cannot be spread over {tensors} tensors")
    random = np.random.default_rng(int(run_config["seed"]))
    arrays = ArrayRecord()
    for place in range(tensors):
        count = elements // tensors + (place < elements % tensors)
        arrays[f"tensor-{place:06d}"] = Array(random.standard_normal(count, np.float32))
    return arrays


def train(arrays: ArrayRecord, settings: Settings) -> ArrayRecord:
    """The moved model, after `train_seconds` at the least. Empties `arrays`."""
    ends_at = time.monotonic() + settings.train_seconds
    trained = ArrayRecord()
    for place, name in enumerate(list(arrays)):
        weights = arrays.pop(name).numpy()
        move(weights, settings, place)
        trained[name] = Array(weights)
        del weights  # before the next one is read
    time.sleep(max(0.0, ends_at - time.monotonic()))
    return trained


def move(weights: Weights, settings: Settings, place: int) -> None:
    """Add the step of the tensor at `place`, in place."""
    random = np.random.default_rng([settings.seed, settings.client, place])
    flat = weights.reshape(-1)
    step = random.standard_normal(min(BLOCK, flat.size), np.float32)
    step *= np.float32(settings.learning_rate)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        block += step[: block.size]


def evaluate(arrays: ArrayRecord) -> dict[str, float]:
    """The weights' mean square: there are no data to score them on. Empties `arrays`."""
    squares, count = 0.0, 0
    for name in list(arrays):
        flat = arrays.pop(name).numpy().reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            squares += float(np.dot(block, block))
        count += flat.size
        del flat
    return {"mean-square": squares / count}
