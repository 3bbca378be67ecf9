"""XGBoost models as updates: one tensor `0` of bytes, the model as XGBoost writes it in JSON.

    fedxgbbagging   the trees of all clients behind those of the base
    fedxgbcyclic    the model of the one client that was asked

Both give what Flower's strategies of the same names give. Of an update with several boosting
rounds `fedxgbbagging` takes all trees, where Flower's leaves out those behind the first round.
A model has another size in each round, so it is judged by what it says, not by the base's layout.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from flowerbed.aggregator.fold import InTime
from flowerbed.aggregator.tensors import Array, Tensor, TensorFile, write
from flowerbed.contracts.values import Sha256
from flowerbed.events.errors import Rejected

NAME = "0"
LARGEST = 16 << 20
"""Bytes of the trees that one update may add."""


class NotTrees(Rejected):
    """It is no XGBoost model, or none of the same kind as the base."""

    code: ClassVar[str] = "not-trees"


@dataclass(frozen=True, slots=True)
class Model:
    """A parsed model; `document` is changed where trees are added."""

    document: dict[str, Any]

    @property
    def gbtree(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["learner"]["gradient_booster"]["model"]
        return found

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """What two models must have in common for trees of one to fit into the other."""
        learner = self.document["learner"]
        param = learner["learner_model_param"]
        per_round = self.gbtree["gbtree_model_param"]["num_parallel_tree"]
        objective = learner["objective"]["name"]
        return objective, str(param["num_feature"]), str(param["num_class"]), str(per_round)

    def add(self, other: "Model") -> None:
        ours, more = self.gbtree, other.gbtree
        n = len(ours["trees"])
        ours["trees"] += [{**tree, "id": n + place} for place, tree in enumerate(more["trees"])]
        ours["tree_info"] += more["tree_info"]
        ours["iteration_indptr"] += [n + end for end in more["iteration_indptr"][1:]]
        ours["gbtree_model_param"]["num_trees"] = str(len(ours["trees"]))


def read_model(file: TensorFile) -> Model | None:
    """The model in a file; None for the empty one that a federation may begin with.

    Raises:
        NotTrees: it is none.
    """
    if [(one.name, one.dtype_name, len(one.shape)) for one in file.tensors.values()] != [
        (NAME, "U8", 1)
    ]:
        raise NotTrees(f"an XGBoost model is one tensor {NAME} of bytes (uint8)")
    content = file.read(NAME).tobytes()
    if not content:
        return None
    try:
        document = json.loads(content, parse_constant=_not_finite)
        model = Model(document)
        _check(model)
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise NotTrees(
            f"not an XGBoost model in JSON, Booster.save_raw('json'): {_words(error)}"
        ) from error
    return model


def check_update(update: TensorFile, base: TensorFile) -> None:
    """Raises: NotTrees: trees of the update would not fit into the base."""
    found, wanted = read_model(update), read_model(base)
    if found is None or not found.gbtree["trees"]:
        raise NotTrees("the update has no tree")
    if wanted is not None:
        _same_kind(found, wanted)


def _same_kind(found: Model, wanted: Model) -> None:
    if found.kind != wanted.kind:
        raise NotTrees(f"the update is for {found.kind}, the base for {wanted.kind}")


def _check(model: Model) -> None:
    gbtree, (_, n_features, _, _) = model.gbtree, model.kind
    trees, ends = gbtree["trees"], gbtree["iteration_indptr"]
    n = len(trees)
    if int(gbtree["gbtree_model_param"]["num_trees"]) != n or len(gbtree["tree_info"]) != n:
        raise ValueError(f"{n} trees, and its counts say otherwise")
    if ends[0] != 0 or ends[-1] != n or ends != sorted(ends):
        raise ValueError("its boosting rounds are not those of its trees")
    for tree in trees:
        _check_tree(tree, int(n_features))


def _check_tree(tree: dict[str, Any], n_features: int) -> None:
    """A walk down the tree ends, and looks at features that there are."""
    lefts, rights, features = tree["left_children"], tree["right_children"], tree["split_indices"]
    n = int(tree["tree_param"]["num_nodes"])
    if not {len(lefts), len(rights), len(features), len(tree["split_conditions"])} == {n}:
        raise ValueError("a tree's nodes are not counted right")
    for node, (left, right, feature) in enumerate(zip(lefts, rights, features, strict=True)):
        is_leaf = left == -1 and right == -1
        if not is_leaf and not (node < left < n and node < right < n and 0 <= feature < n_features):
            raise ValueError(f"node {node} of a tree leads nowhere")


def _not_finite(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else type(error).__name__


# --- rules -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bagging:
    def write(self, path: Path, base: TensorFile, updates: Sequence[InTime]) -> tuple[Sha256, None]:
        found = [read_model(one) for one in (base, *(one.update for one in updates))]
        merged, *more = [model for model in found if model is not None]
        if not more:  # the first model of all, as it is
            return _write(path, updates[0].update.read(NAME)), None
        for model in more:
            _same_kind(model, merged)
            merged.add(model)
        content = json.dumps(merged.document).encode()
        return _write(path, np.frombuffer(content, np.uint8)), None


@dataclass(frozen=True, slots=True)
class Cyclic:
    def write(self, path: Path, base: TensorFile, updates: Sequence[InTime]) -> tuple[Sha256, None]:
        return _write(path, updates[0].update.read(NAME)), None


def _write(path: Path, content: Array) -> Sha256:
    layout = {NAME: Tensor(NAME, "U8", content.shape, 0)}

    def blocks(tensor: Tensor) -> Iterator[Array]:
        yield content

    return write(path, layout, blocks)[0]
