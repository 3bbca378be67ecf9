"""Which Python runs the apps at a site: ours, or that of an environment of the site's choosing."""

import os
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from flowerbed.runner.errors import BadInput
from flowerbed.runner.warm import WORKER_COMMAND

NEEDED = ("flwr", "numpy", "pydantic", "safetensors")
"""What the worker itself imports."""
CHECK_SECONDS = 120.0
_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def worker_command(python: str | None) -> Sequence[str]:
    """With a Python of the site's own, only the worker's own modules are taken from here: of all
    else, Flower and torch too, that environment has its own."""
    if python is None:
        return WORKER_COMMAND
    places = import_module("flowerbed").__path__
    return (python, "-E", str(_BOOTSTRAP), *map(str, places))


def chosen_python(given: str) -> str:
    """The interpreter as it is kept: absolute, and able to run an app.

    Raises:
        BadInput: it is none, or has not what a Flower app needs.
    """
    # Not resolved: a virtual environment's Python is a link, and the link is what makes it one.
    path = Path(given).expanduser().absolute()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise BadInput(f"--python {given} is no program that can be run")
    code = (
        "import sys, importlib.util as util;"
        " missing = [name for name in sys.argv[1:] if util.find_spec(name) is None];"
        " print(' '.join(missing) if sys.version_info >= (3, 11) else 'python>=3.11')"
    )
    try:
        asked = subprocess.run(
            [str(path), "-E", "-c", code, *NEEDED],
            capture_output=True, text=True, timeout=CHECK_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise BadInput(f"--python {given} is no Python that runs: {error}") from error
    if missing := asked.stdout.strip():
        raise BadInput(f"--python {given} lacks {missing}: install them into its environment")
    return str(path)
