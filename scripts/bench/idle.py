"""What the stack and four runners cost while nothing happens: processor time of every process.

    python -m scripts.bench.idle --seconds 60
    python -m scripts.bench.idle --seconds 600 --runners 1000

Starts a stack of its own with four enrolled runners that hold leases in an open federation (so
that every worker is warm), waits until it is quiet, and reads the processor time that each process
used in the given seconds. Reported as a share of one core.

With --runners there are so many simulated ones instead (`scale/`), which hold leases and wait for
work too. Their own processor time is told beside that of the stack, and is no part of it.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import psutil

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.support.field import Field, hospitals, until

PYTHON = ("flowerbed.",)
QUIET = 15.0


def name_of(process: psutil.Process) -> str:
    command = process.cmdline()
    for word in command:
        if word.startswith(PYTHON):
            return f"python {word}"
    return Path(command[0]).name.split(":")[0] if command else process.name()


def ours(field: Field) -> list[psutil.Process]:
    """The supervisor, the agents, and everything below them."""
    return below(str(field.stack.state_dir), *(str(site.home) for site in field.sites))


def below(*folders: str) -> list[psutil.Process]:
    """Processes with one of the folders in their command line, and all that they have started."""
    found = set()
    for process in psutil.process_iter():
        try:
            if any(folder in " ".join(process.cmdline()) for folder in folders):
                found |= {process, *process.children(recursive=True)}
        except psutil.Error:  # it has ended meanwhile
            continue
    return list(found)


def seconds_used(processes: list[psutil.Process]) -> dict[psutil.Process, float]:
    used = {}
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        used[process] = times.user + times.system
    return used


def measure(field: Field, seconds: float) -> Counter[str]:
    processes = ours(field)
    before = seconds_used(processes)
    time.sleep(seconds)
    spent: Counter[str] = Counter()
    for process, used in seconds_used(list(before)).items():
        spent[name_of(process)] += used - before[process]  # type: ignore[assignment]  # seconds
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description="Processor time of an idle stack.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runners", type=int, help="simulated ones, instead of four real ones")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-idle-"))
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            if options.runners is None:
                _real(field, scratch, options.seconds)
            else:
                _simulated(field, options.runners, options.seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _real(field: Field, scratch: Path, seconds: float) -> None:
    described = prepare("hospital", scratch / "data", 7)
    names = [site["name"] for site in described["sites"]]
    for ready in hospitals(field, scratch / "data", scratch / "clients", names):
        waiting = ready.submit(hospital(min_clients=5))
        until(partial(_all_joined, ready, waiting), "four clients are joined")
        until(partial(_all_warm, ready), "four workers are warm")
        time.sleep(QUIET)
        _print(measure(ready, seconds), seconds)


def _simulated(field: Field, runners: int, seconds: float) -> None:
    from scripts.bench.scale.crowd import crowds
    from scripts.bench.scale.growth import Scale

    with crowds(field.stack.ca_file, beats=False) as many:
        Scale(control=field, crowds=many, window=seconds).hold(runners)
        time.sleep(QUIET)
        before = many.cpu_seconds()
        spent = measure(field, seconds)
        generator = many.cpu_seconds() - before
        _print(spent, seconds)
        print(f"{'simulated runners, beside it':<44} {generator:6.2f} s")


def _all_joined(field: Field, federation_id: str) -> bool:
    clients = field.api.federation(federation_id)["clients"]
    joined = [one for one in clients if one["status"] == "joined"]
    return len(joined) == len(field.sites)


def _all_warm(field: Field) -> bool:
    return all(site.workers() for site in field.sites)


def _print(spent: Counter[str], seconds: float) -> None:
    python = sum(used for name, used in spent.items() if name.startswith("python"))
    for name, used in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{name:<44} {used:6.2f} s  {100 * used / seconds:5.2f} % of a core")
    print(f"{'all Python processes':<44} {python:6.2f} s  {100 * python / seconds:5.2f} %")
    everything = sum(spent.values())
    print(f"{'everything':<44} {everything:6.2f} s  {100 * everything / seconds:5.2f} %")


if __name__ == "__main__":
    sys.exit(main())
