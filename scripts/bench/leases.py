"""How soon a site's workers have done their first training, and what they hold: forked or not.

    python -m scripts.bench.leases --workers 4 --repeats 7

In each turn as many workers of `hospital` as that start at once on real data and train one epoch,
as when a site is offered so many leases: each a program of its own, then forked from a nursery that
was just started, then from one that had a worker before.

    seconds     until the last of them has answered
    processor   seconds of all their processes
    PSS         MiB of all their processes, a page that several share split among them
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from flowerbed.flower_apps.initialize import write_initial_checkpoint
from flowerbed.flower_apps.nursery import Fresh, Nursery, Start
from flowerbed.runner.pipe import Hello, Request
from flowerbed.runner.warm import WORKER_COMMAND, Worker, environment
from flowerbed.runner.work_folder import WorkFolder
from scripts.prepare_data import prepare

CONFIG = {"local-epochs": 1, "batch-size": 16, "learning-rate": 0.05, "server-round": 1}
Sample = tuple[float, float, float]


def request(base: Path, folder: Path, seed: int) -> Request:
    made = WorkFolder(folder)
    made.make()
    return Request(
        message_type="train", base_path=str(base), folder=str(folder), has_update=True,
        config={**CONFIG, "seed": seed}, seed=seed,
    )  # fmt: skip


async def first_orders(start: Start, hello: Hello, base: Path, folder: Path, n: int) -> Sample:
    workers = [Worker(hello, start) for _ in range(n)]
    had = processor()
    began = time.perf_counter()
    orders = (
        one.run(request(base, folder / str(place), place)) for place, one in enumerate(workers)
    )
    await asyncio.gather(*orders)
    seconds = time.perf_counter() - began
    used, held = processor() - had, memory()
    await asyncio.gather(*(one.close() for one in workers))
    shutil.rmtree(folder)
    return seconds, used, held


def processor() -> float:
    """Of all that run below this process now."""
    times = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def memory() -> float:
    below = psutil.Process().children(recursive=True)
    return sum(one.memory_full_info().pss for one in below) / 1024**2


async def measure(scratch: Path, n: int, repeats: int) -> dict[str, list[Sample]]:
    site = prepare("hospital", scratch / "data", 7)["sites"][0]["name"]
    base = scratch / "base.safetensors"
    write_initial_checkpoint("hospital", 7, {}, base)
    hello = Hello(app="hospital", data_path=str(scratch / "data" / site), run_id=1, node_id=2)
    its_own = environment(os.environ)
    found: dict[str, list[Sample]] = {"programs of their own": [], "a new nursery": [],
                                      "a nursery that was there": []}  # fmt: skip
    for turn in range(repeats):
        nursery = Nursery(WORKER_COMMAND, its_own)
        starts: tuple[Start, ...] = (Fresh(WORKER_COMMAND, its_own), nursery, nursery)
        for name, start in zip(found, starts, strict=True):
            sample = await first_orders(start, hello, base, scratch / "work", n)
            found[name].append(sample)
            print(f"{turn} {name} {sample[0]:.2f} {sample[1]:.2f} {sample[2]:.0f}", file=sys.stderr)
        await nursery.close()
    return found


def show(found: dict[str, list[Sample]], n: int) -> None:
    print(f"| {n} workers | times | seconds, median | least to most | processor | PSS, MiB |")
    print("|---|---|---|---|---|---|")
    for name, samples in found.items():
        seconds, used, held = zip(*samples, strict=True)
        print(
            f"| {name} | {len(samples)} | {statistics.median(seconds):.2f} |"
            f" {min(seconds):.2f} to {max(seconds):.2f} | {statistics.median(used):.2f} |"
            f" {statistics.median(held):.0f} |"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-leases-"))
    try:
        show(asyncio.run(measure(scratch, options.workers, options.repeats)), options.workers)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
