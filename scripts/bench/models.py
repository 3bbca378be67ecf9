"""Rounds with a large model: what every process holds, moves and takes, beside the S3 server alone.

    python -m scripts.bench.models --mebibytes 1024 --clients 4

Starts a stack of its own with as many sites, and trains the synthetic app: a model of the given
size that needs no data. Memory and bytes are counted in models; an update is as large as a model.

    idle        MiB of its own memory before the federation; of a worker, warm and without work
    own         peak of anonymous memory above idle: only the process itself can give it back
    mapped      peak of mapped file pages above idle: page cache, which the kernel can take back
    USS         peak above idle of all that no other process has in memory too, mapped or not
    high        peak of all that was resident at one moment (VmHWM) above idle; misses nothing
    read, written   by system calls, of all processes of that name; Go's go to the network too,
                Python's do not
    to disk     written to storage
    CPU, s      processor time, of all processes of that name

Memory is looked at every 50 ms, the USS every second, and `high` is the kernel's own peak. Of
several processes of a name the one that holds most counts. `initialize` has no idle level: what it
holds is all of it. The target is at most two models and one update.

A round is split at the times of its events. `S3 alone` is how long its objects would take with
plain httpx clients, as many at once as there are sites, that neither hash nor keep them; measured
afterwards on the same server. With C clients a round moves C + 1 objects in and 2 C + 2 out (to the
sites for their evaluation, to the aggregator with the base, to whoever reads the checkpoint back);
the first round C more.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.bench.models_memory import LOOK, Levels, Watch, Watched
from scripts.bench.models_s3 import LONGEST, MIB, rates
from tests.e2e.documents import hospital
from tests.support.field import Field, hospitals, until

QUIET = 5.0
MOST = 3
"""Models that a process may hold: two, and an update."""
SMALL = 0.01
"""Models: who holds and moves less is not shown."""

_EVENTS = """
SELECT type, data ->> 'exchange' AS exchange, (data ->> 'round_number')::int AS number,
    coalesce((data ->> 'train_seconds')::float8, 0) AS app,
    extract(epoch FROM recorded_at)::float8 AS at
FROM events WHERE meta ->> 'correlation_id' = $1
"""
_PHASES: Mapping[str, tuple[str, str | None, Callable[[Iterable[float]], float]]] = {
    "first update": ("update.submitted", "train", min),
    "last update": ("update.submitted", "train", max),
    "screening": ("update.accepted", "train", max),
    "fold, store": ("aggregate.completed", "train", max),
    "read back": ("round.evaluation_started", None, max),
    "evaluation": ("update.submitted", "evaluate", max),
    "close": ("round.completed", None, max),
}
"""Each begins where the one before it ends: with the first or the last of these events."""


def say(**what: object) -> None:
    print(json.dumps(what), file=sys.stderr, flush=True)


def document(options: argparse.Namespace, **spec: Any) -> dict[str, Any]:
    elements = options.mebibytes * MIB // 4
    return hospital(
        app="builtin:synthetic", model_ref={"uri": "builtin:synthetic"},
        dataset_spec={"uris": ["local:synthetic"]}, lease={"ttl_seconds": 120},
        round_policy={"deadline_seconds": LONGEST / 2},
        **{
            "min_clients": options.clients,
            "num_rounds": options.rounds,
            "train": {"seed": 1, "elements": elements, "tensors": options.tensors},
            **spec,
        },
    )  # fmt: skip


def warm(field: Field, options: argparse.Namespace, watch: Watch) -> Levels:
    """What a worker has that has loaded the app and had no work yet. Leaves no worker behind."""
    small = {"seed": 1, "elements": 1000, "tensors": 1}
    waiting = field.submit(document(options, min_clients=options.clients + 1, train=small))
    until(lambda: all(site.workers() for site in field.sites), "every site has a worker")
    time.sleep(QUIET)
    watch.settle()
    idle = watch.named("worker")[0].idle
    field.api.post(f"/federations/{waiting}/cancel", {"reason": "the workers were warm"})
    until(lambda: not has_workers(field), "the workers have ended")
    return idle


def has_workers(field: Field) -> bool:
    try:
        return any(site.workers() for site in field.sites)
    except psutil.Error:  # one is about to end
        return True


def train(field: Field, options: argparse.Namespace) -> tuple[Watch, str, int]:
    """The processes as they were seen, the federation, and the bytes that went over loopback."""
    watch = Watch(field)
    idle = warm(field, options, watch)
    time.sleep(QUIET)
    watch.settle()
    before = psutil.net_io_counters(pernic=True)["lo"].bytes_recv
    with watch.running():
        identity = field.submit(document(options))
        say(federation=identity, mebibytes=options.mebibytes, load=psutil.getloadavg())
        field.completed(identity, LONGEST)
        time.sleep(2 * LOOK)
    for worker in watch.named("worker"):
        worker.idle = idle
    return watch, identity, psutil.net_io_counters(pernic=True)["lo"].bytes_recv - before


async def phases(field: Field, identity: str, rounds: int) -> list[dict[str, float]]:
    """Of each round, in seconds."""
    events = [
        row
        for owner in ("orchestrator", "lease", "aggregator")
        for row in await field.rows(owner, _EVENTS, identity)
    ]
    return [split([one for one in events if one["number"] == n + 1]) for n in range(rounds)]


def split(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    def times(kind: str, exchange: str | None) -> list[float]:
        return [
            one["at"]
            for one in events
            if one["type"] == f"fl.{kind}" and exchange in (None, one["exchange"])
        ]

    began = last = min(times("round.started", None))
    found = {}
    for phase, (kind, exchange, which) in _PHASES.items():
        ended = which(times(kind, exchange))
        found[phase], last = ended - last, ended
    apps = [one["app"] for one in events if one["exchange"] == "train"]
    return {"whole": last - began, "app": max(apps), **found}


def memory_table(watch: Watch, model: int) -> str:
    names = dict.fromkeys(one.name for one in watch.all.values())
    rows = [_row(name, watch.named(name), model) for name in names]
    return "\n".join(
        (
            "| process | | idle, MiB | own | mapped | USS | high | read | written | to disk |"
            " CPU, s | |",
            "|---" * 12 + "|",
            *(row for row in rows if row is not None),
        )
    )


def _row(name: str, group: list[Watched], model: int) -> str | None:
    held = {what: max(one.above(what) for one in group) / model
            for what in ("own", "mapped", "uss", "high")}  # fmt: skip
    moved = {what: sum(one.total(what) for one in group) / model
             for what in ("read_chars", "write_chars", "write_bytes")}  # fmt: skip
    if max(*held.values(), *moved.values()) < SMALL:
        return None
    idle = max(one.idle.get("own", 0) for one in group) / MIB
    seconds = sum(one.total("cpu") for one in group) / 1000
    figures = " | ".join(f"{figure:.2f}" for figure in (*held.values(), *moved.values(), seconds))
    verdict = f"more than {MOST}" if held["own"] > MOST else ""
    return f"| {name} | {len(group)} | {idle:.0f} | {figures} | {verdict} |"


def round_table(rounds: Sequence[Mapping[str, float]], alone: Sequence[float]) -> str:
    names = ("whole", "app", *_PHASES)
    lines = [
        "| round | " + " | ".join(names) + " | S3 alone | whole / S3 alone |",
        "|---" * (len(names) + 3) + "|",
    ]
    for number, (found, seconds) in enumerate(zip(rounds, alone, strict=True), start=1):
        figures = " | ".join(f"{found[name]:.2f}" for name in names)
        lines.append(f"| {number} | {figures} | {seconds:.2f} | {found['whole'] / seconds:.2f} |")
    return "\n".join(lines)


def alone(model: int, clients: int, rounds: int, speed: Mapping[str, float]) -> list[float]:
    """Seconds that a round's objects would take, one after the other at full speed."""
    taken, given = clients + 1, 2 * clients + 2
    usual = model * (taken / speed["PUT"] + given / speed["GET"])
    return [usual + (clients * model / speed["GET"] if n == 0 else 0.0) for n in range(rounds)]


def measure(field: Field, options: argparse.Namespace, scratch: Path) -> None:
    model = options.mebibytes * MIB
    watch, identity, loopback = train(field, options)
    rounds = asyncio.run(phases(field, identity, options.rounds))
    speed = rates(field.stack.s3, model, options.clients, scratch / "object")
    say(speed={method: round(rate / MIB, 1) for method, rate in speed.items()})
    print(
        f"\n{options.mebibytes} MiB in {options.tensors} tensors, {options.clients} clients,"
        f" {options.rounds} rounds; memory and bytes in models\n"
    )
    print(memory_table(watch, model))
    print(f"\nover loopback in all: {loopback / model:.1f} models\n")
    print(round_table(rounds, alone(model, options.clients, options.rounds, speed)))
    put, get = (speed[method] / MIB for method in ("PUT", "GET"))
    print(
        f"\nS3 alone, {options.clients} clients at once: PUT {put:.0f} MiB/s, GET {get:.0f} MiB/s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-models-", dir=options.folder))
    scratch.chmod(0o755)  # Postgres runs as another user
    data, names = scratch / "data", [f"site-{n + 1}" for n in range(options.clients)]
    for name in names:
        (data / name).mkdir(parents=True)
        (data / name / "dataset.json").write_text('{"task": "synthetic"}\n')
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            for ready in hospitals(field, data, scratch / "clients", names):
                measure(ready, options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=64, help="the model's size (64)")
    parser.add_argument("--clients", type=int, default=4, help="sites (4)")
    parser.add_argument("--rounds", type=int, default=2, help="of the federation (2)")
    parser.add_argument("--tensors", type=int, default=16, help="of the model (16)")
    parser.add_argument("--folder", type=Path, help="for all data; about 13 models a round")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
