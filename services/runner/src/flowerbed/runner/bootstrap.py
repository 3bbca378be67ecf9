"""Run the worker in another environment: its own modules from ours, everything else from there.

    PYTHON -E bootstrap.py FOLDER... [--nursery]

FOLDER are those that the `flowerbed` package is made of. Run as a file: in that environment there
is no such package. Imports nothing but the standard library.
"""

import runpy
import sys
import types


def main() -> None:
    package = types.ModuleType("flowerbed")
    package.__path__ = [one for one in sys.argv[1:] if one != "--nursery"]
    sys.modules["flowerbed"] = package
    sys.path.pop(0)  # the folder of this file, where `state.py` and others would be found
    sys.argv[1:] = [one for one in sys.argv[1:] if one == "--nursery"]
    runpy.run_module("flowerbed.runner.worker", run_name="__main__")


if __name__ == "__main__":
    main()
