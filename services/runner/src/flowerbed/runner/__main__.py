"""Run the agent of an enrolled client: `python -m flowerbed.runner --state-dir DIR`."""

import argparse
import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from flowerbed.runner.errors import BadInput, RunnerError
from flowerbed.runner.launch import run_agent
from flowerbed.runner.state import StateDir


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The agent at a client's site.")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--kept-by", type=int, metavar="PID", help="Who starts it again.")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO
    )
    # Presigned addresses are secrets for as long as they hold.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    gc.freeze()  # what was loaded stays
    try:
        run_agent(StateDir.at(chosen.state_dir), keeper=chosen.kept_by)
    except RunnerError as error:
        logging.getLogger(__name__).error("%s", error)
        return 2 if isinstance(error, BadInput) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
