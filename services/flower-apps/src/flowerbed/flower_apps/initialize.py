"""Write an app's initial checkpoint: `python -m flowerbed.flower_apps.initialize --app hospital`.

The same app, seed and config give the same bytes, so its sha256 may stand in a FederationSpec.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.numpy import save

from flowerbed.flower_apps.registry import BUILTIN, find, load


def initial_checkpoint(
    app: str, seed: int, config: Mapping[str, bool | float | int | str] | None = None
) -> bytes:
    """The app's initial model as a safetensors file, keyed as the model's state_dict is."""
    builtin = find(app)
    run_config = {**builtin.default_config(), **(config or {}), "seed": seed}
    arrays = load(builtin.initial_arrays)(run_config)
    return save({name: array.numpy() for name, array in arrays.items()})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write an app's initial checkpoint.")
    parser.add_argument("--app", choices=sorted(BUILTIN), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--config", type=json.loads, default={}, help="the app's config, as JSON")
    chosen = parser.parse_args(arguments)
    content = initial_checkpoint(chosen.app, chosen.seed, chosen.config)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_bytes(content)
    print(f"{hashlib.sha256(content).hexdigest()}  {chosen.out}")


if __name__ == "__main__":
    main()
