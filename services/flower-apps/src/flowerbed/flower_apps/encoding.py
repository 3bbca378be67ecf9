"""Write an update in one of the `forms`: a safetensors file that says what it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from flowerbed.flower_apps.forms import KEY, Error, Form, encode, travels

Arrays = Mapping[str, NDArray[Any]]


class NotOfTheBase(Exception):
    """The new arrays are others than the base's: there is no step between them."""


def write_encoded(
    form: Form,
    arrays: Arrays,
    base: tuple[Path, str],
    path: Path,
    left: Path | None,
    trainable: Sequence[str] = (),
) -> tuple[float, dict[str, NDArray[Any]]]:
    """Write the step from the base's tensors to `arrays`; `base`: its file and sha256.

    `left`: a file of what was left out before. `trainable`: which of the base's are meant.

    Returns the relative L2 error, and what is left out now: nothing, but for top_k.

    Raises:
        NotOfTheBase: other names, shapes or types than the base's.
    """
    error, parts, rest = Error(), dict[str, NDArray[Any]](), dict[str, NDArray[Any]]()
    kept = {} if left is None else _tensors(left)
    with safe_open(base[0], framework="np", backend="pread") as file:
        _check_names(set(arrays), {name for name in file.keys() if travels(name, trainable)})  # noqa: SIM118
        for name in sorted(arrays):
            old, new = file.get_tensor(name), arrays[name]
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise NotOfTheBase(
                    f"{name} is {new.dtype} {new.shape}, in the base {old.dtype} {old.shape}"
                )
            encoded, over = encode(form, old, new, error, kept.get(name))
            parts |= {f"{part}/{name}": values for part, values in encoded.items()}
            if over is not None:
                rest[name] = over
    save_file(parts, path, {KEY: form.of_base(base[1])})
    relative = error.relative
    return relative if np.isfinite(relative) else 0.0, rest


def _check_names(found: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise NotOfTheBase(f"the reply has no {missing[0]}, which the base has")
    if unknown := sorted(found - wanted):
        raise NotOfTheBase(f"the reply has {unknown[0]}, which the base has not")


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    with safe_open(path, framework="np", backend="pread") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
