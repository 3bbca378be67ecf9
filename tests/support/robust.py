"""Robust rules on files, and plain float64 references for what they should give."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from flowerbed.aggregator.fold import InTime
from flowerbed.aggregator.robust import rule_of
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.strategy import Strategy as StrategySpec
from tests.support.models import Model, stored

Matrix = NDArray[np.float64]

RULES: list[tuple[str, dict[str, Any]]] = [
    ("fedmedian", {}),
    ("fedtrimmedavg", {}),
    ("fedtrimmedavg", {"beta": 0.4}),
    ("krum", {}),
    ("krum", {"num_malicious_nodes": 2}),
    ("multikrum", {"num_malicious_nodes": 2, "num_nodes_to_select": 5}),
    ("bulyan", {}),
    ("bulyan", {"num_malicious_nodes": 2}),
]
NAMES = [f"{name} {json.dumps(params)}" for name, params in RULES]


def combine(
    folder: Path,
    name: str,
    params: dict[str, Any],
    base: Model,
    updates: Sequence[Model],
    weights: Sequence[int] | None = None,
) -> tuple[Model, str, tuple[int, ...] | None]:
    """The checkpoint, its digest, and who was chosen."""
    rule = rule_of(StrategySpec(name=name, params=params))
    assert rule is not None
    with ExitStack() as files:
        first = files.enter_context(TensorFile(stored(folder / "base", base)))
        opened = [
            InTime(files.enter_context(TensorFile(stored(folder / f"u{place}", one))), weight)
            for place, (one, weight) in enumerate(
                zip(updates, weights or [1] * len(updates), strict=True)
            )
        ]
        sha256, chosen = rule.write(folder / "out", first, opened)
    return load_file(folder / "out"), sha256, chosen


# --- references: rows are updates, all in float64 ----------------------------------------------


def squared_distances(rows: Matrix) -> Matrix:
    """One difference after the other."""
    return np.array([[float(np.square(a - b).sum()) for b in rows] for a in rows])


def chosen_by_krum(rows: Matrix, n_malicious: int, n_selected: int, n_closest: int = 0) -> set[int]:
    """Blanchard et al. 2017, section 4: the sum over the n - f - 2 closest others."""
    n_closest = n_closest or len(rows) - n_malicious - 2
    distances = squared_distances(rows)
    scores = [
        sum(sorted(np.delete(distances[place], place))[:n_closest]) for place in range(len(rows))
    ]
    return {int(place) for place in np.argsort(scores, kind="stable")[:n_selected]}


def bulyan(rows: Matrix, n_malicious: int) -> Matrix:
    """Of the chosen, by element the mean of the values nearest to the median; the lower of two."""
    n_selected = len(rows) - 2 * n_malicious
    kept = np.sort(rows[sorted(chosen_by_krum(rows, n_malicious, n_selected))], axis=0)
    order = np.argsort(np.abs(kept - np.median(kept, axis=0)), axis=0, kind="stable")
    nearest = np.take_along_axis(kept, order[: n_selected - 2 * n_malicious], axis=0)
    return np.asarray(nearest.mean(axis=0))
