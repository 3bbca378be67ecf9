"""Write an app's initial checkpoint: `python -m flowerbed.flower_apps.initialize --app hospital`.

The same app, seed and config give the same bytes, so its sha256 may stand in a FederationSpec.
Told `-`, it reads its arguments from standard input; with `--nursery` it forks such programs.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save, save_file

from flowerbed.flower_apps import forking
from flowerbed.flower_apps.registry import BUILTIN, find, load

STDIN = "-"
Config = Mapping[str, bool | float | int | str]


def initial_checkpoint(app: str, seed: int, config: Config | None = None) -> bytes:
    """The app's initial model as a safetensors file, keyed as the model's state_dict is."""
    return save(_initial_model(app, seed, config or {}))


def write_initial_checkpoint(app: str, seed: int, config: Config, path: Path) -> str:
    """Write the same to a file, without holding all of it a second time; its sha256."""
    save_file(_initial_model(app, seed, config), path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _initial_model(app: str, seed: int, config: Config) -> dict[str, Any]:
    builtin = find(app)
    arrays = load(builtin.initial_arrays)({**builtin.default_config(), **config, "seed": seed})
    # Each array leaves the record as it is read: a large model does not lie here twice.
    return {name: arrays.pop(name).numpy() for name in list(arrays)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write an app's initial checkpoint.")
    parser.add_argument("--app", choices=sorted(BUILTIN), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--config", type=json.loads, default={}, help="the app's config, as JSON")
    chosen = parser.parse_args(_asked(sys.argv[1:] if arguments is None else arguments))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    sha256 = write_initial_checkpoint(chosen.app, chosen.seed, chosen.config, chosen.out)
    print(f"{sha256}  {chosen.out}")


def _asked(arguments: Sequence[str]) -> list[str]:
    if forking.FLAG in arguments:
        forking.serve(lambda app: load(find(app).initial_arrays))
        arguments = [STDIN]
    return json.loads(sys.stdin.readline()) if list(arguments) == [STDIN] else list(arguments)


if __name__ == "__main__":
    main()
