"""Where running processes spend their time: the functions that py-spy finds at work.

    python -m scripts.bench.hot flowerbed.lease --seconds 20

Samples every process whose command line holds the words, while something else keeps it busy (a
benchmark in another terminal), and prints the functions by their own share of the samples in which
a thread held the interpreter; with `--outside` in which any thread seemed to be at work, for code
that lets go of it, as numpy does. `--below NAME` gives the share of samples with a function of that
name anywhere on the stack.

First `scripts/bench/setup.sh`, which brings py-spy.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

PY_SPY = Path(".bench-packages/bin/py-spy")
RATE = 200
"""Samples a second."""

Stack = tuple[str, ...]


def busy(words: str, most: int) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if words in line and process.pid != os.getpid() and "scripts.bench" not in line:
            found.append(process.pid)
    return sorted(found)[:most]


def sampled(pids: Sequence[int], seconds: int, *, outside: bool) -> Counter[Stack]:
    """How often each stack was seen, outermost function first."""
    counted: Counter[Stack] = Counter()
    more = [] if outside else ["--gil"]
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / str(pid) for pid in pids]
        recording = [
            subprocess.Popen(
                [PY_SPY, "record", "--pid", str(pid), "--duration", str(seconds), "--rate",
                 str(RATE), "--format", "raw", "--output", str(file), *more],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for pid, file in zip(pids, files, strict=True)
        ]  # fmt: skip
        for process in recording:
            process.wait()
        for file in files:
            for line in file.read_text().splitlines() if file.exists() else ():
                stack, _, times = line.rpartition(" ")
                counted[tuple(_shown(frame) for frame in stack.split(";"))] += int(times)
    return counted


def _shown(frame: str) -> str:
    """`function (path/of/module.py:12)` as `function (module.py)`."""
    name, _, place = frame.partition(" (")
    file = place.rsplit("/", 1)[-1].partition(":")[0].rstrip(")")
    return f"{name} ({file})" if file else name


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.hot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", help="in the command lines of the processes")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--most", type=int, default=8, help="so many processes")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--outside", action="store_true")
    parser.add_argument("--below", action="append", default=[], metavar="NAME")
    options = parser.parse_args(arguments)
    pids = busy(options.words, options.most)
    if not pids:
        print(f"no process has {options.words!r} in its command line", file=sys.stderr)
        return 2
    counted = sampled(pids, options.seconds, outside=options.outside)
    total = counted.total()
    if not total:
        print(f"{options.words}: not at work in {options.seconds} s")
        return 0
    share = total / RATE / options.seconds
    print(f"{len(pids)} x {options.words}: {total} samples, {100 * share:.0f} % of a core\n")
    own: Counter[str] = Counter()
    for stack, times in counted.items():
        own[stack[-1]] += times
    print("| function | own share |\n|---|---|")
    for name, times in own.most_common(options.rows):
        print(f"| `{name}` | {100 * times / total:.1f} % |")
    for wanted in options.below:
        within = sum(
            times for stack, times in counted.items() if any(wanted in frame for frame in stack)
        )
        print(f"| (all within `{wanted}`) | {100 * within / total:.1f} % |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
