"""One control plane and many runners: what they wait for, and what it costs to serve them.

    python -m scripts.bench.scale --runners 10,100,1000,3000 --seconds 60 --seed 7 --plot out.svg
    python -m scripts.bench.scale --runners 1000 --round --update-kib 100

Starts a stack of its own. Simulated runners speak the real protocol: invite, enrolment with a
certificate request, mTLS, signed offers and orders, long polls, heartbeats; they share processes
and train nothing (`crowd.py`, `simulated.py`). At each size new ones enrol until there are so many,
a federation that never starts offers all of them a lease, they take it, and for --seconds they wait
for work as agents do. The federation is cancelled before the next size.

    offer         from the submission of the federation until a runner has its offer
    heartbeat     one from each runner every 20 s beside its long polls: an agent sends them while
                  it works only, for a question for work is one too
    poll late     how much later than asked an empty long poll is answered
    generator late   how late the simulated runners' own process is: part of every latency above
    calls/s       answered heartbeats and long polls
    CPU, memory   of the stack's processes by name: share of a core, and PSS (RSS in which shared
                  pages count in part); the generator's processor time stands beside it, for it
                  competes for the same cores
    KiB per runner   PSS beyond the size before, for each runner more

Latency is what a runner sees. A long poll that is answered with work or an offer is not counted.

With --round one federation of the largest size runs instead, with real orders, downloads, updates
of --update-kib to S3, reports, fold, checkpoint and evaluation. Its time is split at recorded
events (`first update` is from the round's start until the first report is recorded, and so on).
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.bench.scale import one_round
from scripts.bench.scale.crowd import crowds
from scripts.bench.scale.growth import Scale
from scripts.bench.scale.tables import tables, verdicts
from tests.support.field import Field, process_of


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Scale]:
    """A stack without runners and the processes for them; nothing is left afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all of it is stopped
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-scale-"))
    scratch.chmod(0o755)  # Postgres runs as another user
    try:
        with running_stack(scratch / "stack") as stack:
            control = Field(stack, Api(stack.gateway_url, stack.api_token))
            ca, beats = stack.ca_file, not options.round
            with crowds(ca, processes=options.processes, beats=beats, seed=options.seed) as many:
                yield Scale(control=control, crowds=many, window=options.seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def grow(scale: Scale, options: argparse.Namespace) -> None:
    try:
        for runners in (0, *options.runners):
            scale.grow(runners)
    finally:  # what was seen until then counts, if there is any
        if len(scale.sizes) > 1:
            print("\n\n".join(tables(scale.sizes)))
            print("\n" + "\n".join(verdicts(scale.sizes)))
            if options.plot is not None:
                from scripts.bench.scale.plot import draw

                draw(scale.sizes, options.plot)


def whole_round(scale: Scale, options: argparse.Namespace) -> None:
    scale.enrol(max(options.runners))
    found = one_round.run(scale, options.update_kib, options.rounds)
    print("\n\n".join(one_round.tables(found)))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with prepared(options) as scale:
        lease = psutil.Process(process_of(scale.control.stack, "lease"))
        files, _ = lease.rlimit(psutil.RLIMIT_NOFILE)
        print(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, seed"
            f" {options.seed}; a service may open {files} files\n"
        )
        (whole_round if options.round else grow)(scale, options)
    return 0


def _sizes(text: str) -> list[int]:
    return sorted({int(one) for one in text.split(",")})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = [10, 100, 1000, 3000]
    parser.add_argument("--runners", type=_sizes, default=sizes, help="sizes (10,100,1000,3000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of waiting at each size (60)")
    parser.add_argument("--seed", type=int, default=7, help="of when heartbeats begin (7)")
    parser.add_argument("--processes", type=int, default=1, help="with simulated runners (1)")
    parser.add_argument("--plot", type=Path, help="write the growth curve to this SVG file")
    parser.add_argument("--round", action="store_true", help="a whole round instead")
    parser.add_argument("--rounds", type=int, default=1, help="how many, with --round (1)")
    parser.add_argument("--update-kib", type=int, default=100, help="of an update (100)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
