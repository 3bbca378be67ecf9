"""How long a start takes, and what the idle stack holds: `flowerbed up`, the CLI, memory.

    python -m scripts.bench.startup --repeats 7

Starts a stack in a directory of its own once (that start makes keys and databases, and is told
apart), then stops and starts it again in turn: seconds until the command returns, which is when
every service is ready. `flowerbed --help` and `flowerbed status` run with a warm page cache, in
processes of their own. Memory is read from each process of the last stack once it is quiet:

    RSS     what it maps, shared pages counted in each process
    PSS     the same with a shared page split among those that share it: this one adds up
    USS     pages that nothing shares: what ending the process would free
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from flowerbed.embedded.control import down
from flowerbed.embedded.removal import remove
from flowerbed.embedded.stack import Stack
from scripts.bench.idle import below, name_of

FLOWERBED = str(Path(sys.executable).parent / "flowerbed")
QUIET = 20.0


def timed(*command: str, state: Path) -> float:
    """Seconds that a command of the CLI takes."""
    environment = {**os.environ, "FLOWERBED_STATE_DIR": str(state)}
    began = time.perf_counter()
    subprocess.run([FLOWERBED, *command], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def memory(stack: Stack) -> dict[str, list[float]]:
    """By the process's name: how many there are, and RSS, PSS and USS of all of them in MiB."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for process in below(str(stack.state_dir)):
        with suppress(psutil.Error):
            used = process.memory_full_info()
            for place, size in enumerate((1024**2, used.rss, used.pss, used.uss)):
                found[name_of(process)][place] += size / 1024**2
    return found


def show_times(times: dict[str, list[float]]) -> None:
    print("| command | times | seconds, median | least to most |")
    print("|---|---|---|---|")
    for name, seconds in times.items():
        print(
            f"| {name} | {len(seconds)} | {statistics.median(seconds):.2f} |"
            f" {min(seconds):.2f} to {max(seconds):.2f} |"
        )


def show_memory(found: dict[str, list[float]]) -> None:
    print("\n| process | how many | RSS, MiB | PSS, MiB | USS, MiB |")
    print("|---|---|---|---|---|")
    for name, (count, *sizes) in sorted(found.items(), key=lambda item: -item[1][2]):
        print(f"| {name} | {count:.0f} | " + " | ".join(f"{size:.0f}" for size in sizes) + " |")
    sums = [sum(column) for column in zip(*found.values(), strict=True)]
    print(f"| **all** | {sums[0]:.0f} | " + " | ".join(f"{size:.0f}" for size in sums[1:]) + " |")


def measure(state: Path, repeats: int) -> None:
    times = {"`flowerbed up`, the first time": [timed("up", state=state)]}
    ups, helps, statuses = [], [], []
    for turn in range(repeats):
        timed("down", state=state)
        ups.append(timed("up", state=state))
        timed("status", state=state)
        helps.append(timed("--help", state=state))
        statuses.append(timed("status", state=state))
        print(f"{turn} {ups[-1]:.2f} {helps[-1]:.3f} {statuses[-1]:.3f}", file=sys.stderr)
    times |= {
        "`flowerbed up`, warm": ups,
        "`flowerbed --help`": helps,
        "`flowerbed status`": statuses,
    }
    show_times(times)
    time.sleep(QUIET)
    show_memory(memory(Stack(state)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-startup-"))
    state = scratch / "stack"
    try:
        measure(state, options.repeats)
    finally:
        down(state)
        remove(state)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
