"""The fold of many updates of ten million float32, beside Flower's, plain numpy, and the memory.

    python -m scripts.bench.aggregation --clients 20,50

Each method runs in a process of its own, in turn with the others, several times: its time, and how
far the peak of its memory lies above that of the process before the updates were there.

    flwr       `aggregate_arrayrecords` of the pinned Flower, on records that are in memory
    numpy      `sum += weight * update`, on arrays that are in memory
    fold       this project's, from files, each update alone as it comes
    together   the same where all wait: several updates in one pass over the sum
    read       one pass that reads the updates in memory, by all cores: nothing can be faster
    stream     `sum += update` on arrays in memory by all cores: 12 bytes moved an element

Files lie in the page cache, where a download has just put them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from flowerbed.aggregator.fold import TOGETHER, Accumulator, InTime
from flowerbed.aggregator.tensors import TensorFile

METHODS = ("flwr", "numpy", "fold", "together", "read", "stream")
N_FILES = 10
"""Different updates; with more clients they repeat. Each is read anew."""
CORES = os.cpu_count() or 1
BLOCK = 65_536


def weight(place: int) -> int:
    return 100 + place


def by_flower(paths: Sequence[Path]) -> Callable[[], object]:
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(load_file(path)["w"])}),
                "metrics": MetricRecord({"num-examples": weight(place)}),
            }
        )
        for place, path in enumerate(paths)
    ]
    return lambda: aggregate_arrayrecords(records, "num-examples")


def by_numpy(paths: Sequence[Path]) -> Callable[[], object]:
    arrays = [load_file(path)["w"] for path in paths]

    def work() -> object:
        total = np.zeros_like(arrays[0])
        for place, array in enumerate(arrays):
            total += np.float32(weight(place)) * array
        total /= np.float32(sum(map(weight, range(len(arrays)))))
        return total

    return work


def by_fold(paths: Sequence[Path], together: int = 1) -> Callable[[], object]:
    def work() -> object:
        with TensorFile(paths[0]) as base:
            accumulator = Accumulator(base.tensors)
        for first in range(0, len(paths), together):
            with ExitStack() as files:
                group = enumerate(paths[first : first + together], first)
                accumulator.add(
                    *(InTime(files.enter_context(TensorFile(path)), weight(n)) for n, path in group)
                )
        return accumulator.mean()

    return work


def by_reading(paths: Sequence[Path]) -> Callable[[], object]:
    arrays = [load_file(path)["w"] for path in paths]

    def read(start: int) -> None:
        for array in arrays:
            array[start : start + BLOCK].max()

    return lambda: _on_all_cores(read, arrays[0].size)


def by_streaming(paths: Sequence[Path]) -> Callable[[], object]:
    arrays = [load_file(path)["w"] for path in paths]
    total = np.zeros_like(arrays[0])

    def work() -> None:
        for array in arrays:
            _on_all_cores(lambda at, array=array: _add(total, array, at), total.size)  # type: ignore[misc]

    return work


def _add(total: Any, array: Any, start: int) -> None:
    part = total[start : start + BLOCK]
    np.add(part, array[start : start + BLOCK], out=part)


def _on_all_cores(work: Callable[[int], None], count: int) -> None:
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(work, range(0, count, BLOCK)))


def worker(method: str, n_clients: int, folder: Path) -> None:
    """One measurement, as a line of JSON."""
    paths = [folder / str(place % N_FILES) for place in range(n_clients)]
    before = peak_memory()
    work = {
        "flwr": by_flower,
        "numpy": by_numpy,
        "fold": by_fold,
        "together": lambda them: by_fold(them, TOGETHER),
        "read": by_reading,
        "stream": by_streaming,
    }[method](paths)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "mebibytes": peak_memory() - before}))


def peak_memory() -> float:
    """Of this process since it began, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024


def measure(n_clients: int, repeats: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for turn in range(repeats):
        for method in METHODS:
            command = [sys.executable, "-m", "scripts.bench.aggregation", "--worker", method]
            command += ["--clients", str(n_clients), "--folder", str(folder)]
            ran = subprocess.run(command, check=True, capture_output=True, text=True)
            found[method].append(json.loads(ran.stdout))
            print(f"{turn} {n_clients} {method} {ran.stdout.strip()}", file=sys.stderr, flush=True)
    return found


def show(n_clients: int, found: dict[str, list[dict[str, float]]]) -> None:
    medians = {m: statistics.median(one["seconds"] for one in found[m]) for m in METHODS}
    print(f"\n{n_clients} updates of 10,000,000 float32 (40 MB each)\n")
    print("| method | seconds, median | least to most | x flwr | x stream | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        times = [one["seconds"] for one in found[method]]
        peak = max(one["mebibytes"] for one in found[method])
        print(
            f"| {method} | {medians[method]:.3f} | {min(times):.3f} to {max(times):.3f} |"
            f" {medians['flwr'] / medians[method]:.1f} |"
            f" {medians['stream'] / medians[method]:.2f} | {peak:.0f} |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    counts = options.clients or [20, 50]
    if options.worker:
        worker(options.worker, counts[0], options.folder)
        return 0
    with tempfile.TemporaryDirectory(prefix="flowerbed-fold-") as name:
        for place in range(N_FILES):
            values = np.random.default_rng(place).standard_normal(options.elements, np.float32)
            save_file({"w": values}, Path(name) / str(place))
        for count in counts:
            show(count, measure(count, options.repeats, Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
