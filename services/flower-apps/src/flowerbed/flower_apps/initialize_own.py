"""Write the base checkpoint of an app of somebody's own, in a process of its own:

python -m flowerbed.flower_apps.initialize_own --folder DIR --model pkg.task:Net ...

What the author has already will do: a class or a function that gives a model with a `state_dict`,
an ArrayRecord, a mapping of names to arrays, or a list of arrays. One that takes an argument is
given the app's run config.
"""

import argparse
import inspect
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from flowerbed.flower_apps.registry import load_from

Config = Mapping[str, bool | float | int | str]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class NoModel(SystemExit):
    """What the app gave is none that can be used; the message is for its author."""


def initial_model(
    folder: Path, reference: str, seed: int, config: Config
) -> dict[str, NDArray[Any]]:
    """The model's arrays by name; the same app, seed and config give the same."""
    _seed(seed)
    found = load_from(folder, reference)
    _seed(seed)  # the import may have used some, or brought torch
    return _arrays(_called(found, config) if callable(found) else found, reference)


def _called(make: Callable[..., Any], config: Config) -> Any:
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # of some classes written in C
        return make()
    needed = [one for one in parameters if one.kind in _POSITIONAL and one.default is one.empty]
    return make(dict(config)) if needed else make()


def _arrays(made: Any, reference: str) -> dict[str, NDArray[Any]]:
    if callable(getattr(made, "state_dict", None)):
        made = made.state_dict()
    if isinstance(made, list | tuple):
        made = {str(place): array for place, array in enumerate(made)}
    if not isinstance(made, Mapping) or not made:
        raise NoModel(
            f"{reference} gave {type(made).__name__}: no model with a state_dict, ArrayRecord,"
            " mapping or list of arrays"
        )
    return {str(name): _array(value, f"{reference}: {name}") for name, value in made.items()}


def _array(value: Any, name: str) -> NDArray[Any]:
    if callable(getattr(value, "detach", None)):  # torch
        value = value.detach().cpu()
    if callable(getattr(value, "numpy", None)):  # torch, tensorflow, Flower's own Array
        value = value.numpy()
    array = np.asarray(value, order="C")
    if array.dtype.kind not in "fiub":
        raise NoModel(f"{name} is no array of numbers but {array.dtype}")
    return array


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the base checkpoint of an app.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", required=True, metavar="MODULE:NAME")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--config", type=json.loads, default={}, help="the run config, as JSON")
    chosen = parser.parse_args(arguments)
    save_file(initial_model(chosen.folder, chosen.model, chosen.seed, chosen.config), chosen.out)


if __name__ == "__main__":
    main()
