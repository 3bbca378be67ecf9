"""What open dashboards cost: the same federation with nobody looking, and with many.

    python -m scripts.bench.dashboards --open 200 --rounds 20 --turns 3

Four hospitals train. In turn nobody looks, or one process holds --open connections to
`GET /federations/{id}/live`, as a page does, and reads all that is sent. Shown for each: a round's
time (median of all rounds but the first two), the processor time of the gateway and of the front
in that time, the gateway's memory, how many bytes a page was sent a second, and how long after its
commit an event had reached a page (p50, p99). Pages are open on other machines; here the process
that plays them shares the stack's cores, so it has the lowest priority, and its own processor time
stands beside the rest.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.bench.backbone.tables import markdown, spread
from scripts.bench.rounds import TRAIN, WARM_UP, Bench, prepared
from tests.e2e.documents import hospital
from tests.support.field import Field, hospitals, process_of

MIB = 1024 * 1024
NOBODY = "nobody looks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Seconds, but for memory in MiB, bytes a page a second, and latencies in milliseconds."""

    rounds: list[float]
    gateway: float
    front: float
    memory: float
    readers: float = 0.0
    bytes_each: float = 0.0
    latencies: Sequence[float] = ()


async def look(url: str, token: str, federation_id: str, n_open: int) -> None:
    """Hold the connections until the federation has ended; then say what came."""
    sizes, latencies = [0] * n_open, list[float]()

    async def one(place: int, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/federations/{federation_id}/live") as answer:
            assert answer.status == 200, await answer.text()
            event = ""
            async for line in answer.content:
                sizes[place] += len(line)
                if line.startswith(b"event:"):
                    event = line[7:].decode().strip()
                elif line.startswith(b"data:") and event in ("events", "patch", "view"):
                    if event == "events" and place % 20 == 0:
                        latencies.extend(_latencies(json.loads(line[5:])))
                    if b'"status":"completed"' in line and _has_ended(event, line):
                        return

    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector, read_bufsize=4 * MIB
    ) as session:
        began = time.monotonic()
        tasks = [asyncio.create_task(one(place, session)) for place in range(n_open)]
        await asyncio.gather(*tasks)
        seconds = time.monotonic() - began
    used = psutil.Process().cpu_times()
    told = {"bytes_each": statistics.mean(sizes) / seconds, "latencies": latencies,
            "readers": used.user + used.system}  # fmt: skip
    print(json.dumps(told), flush=True)


def _latencies(told: dict[str, Any]) -> Iterator[float]:
    now = time.time()
    for event in told["events"]:
        yield 1000 * (now - datetime.fromisoformat(event["recorded_at"]).timestamp())


def _has_ended(event: str, line: bytes) -> bool:
    federation = json.loads(line[5:]).get("federation", {})
    return event != "events" and federation.get("status") == "completed"


def turn(field: Field, bench: Bench, n_open: int) -> Turn:
    gateway = psutil.Process(process_of(field.stack, "gateway"))
    front = next(one for one in psutil.process_iter(["name"]) if _is_front(one, field))
    before = _used(gateway), _used(front)
    identity = field.submit(hospital(num_rounds=bench.n_rounds, train=TRAIN | {"seed": bench.seed}))
    with _readers(field, identity, n_open) as readers:
        found = field.completed(identity, 600.0)
        told = json.loads(readers.communicate(timeout=60)[0]) if readers else {}
    rounds = [one["total_seconds"] for one in found["rounds"] if one["round_number"] > WARM_UP]
    return Turn(
        rounds=rounds,
        gateway=_used(gateway) - before[0],
        front=_used(front) - before[1],
        memory=gateway.memory_full_info().uss / MIB,
        **told,
    )


@contextmanager
def _readers(field: Field, identity: str, n_open: int) -> Iterator["subprocess.Popen[str] | None"]:
    if not n_open:
        yield None
        return
    command = [sys.executable, "-m", "scripts.bench.dashboards", "--look", identity]
    command += ["--open", str(n_open), "--state-dir", str(field.stack.state_dir)]
    process = subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _is_front(process: psutil.Process, field: Field) -> bool:
    try:
        return "caddy" in process.name() and str(field.stack.state_dir) in " ".join(
            process.cmdline()
        )
    except psutil.Error:
        return False


def measure(bench: Bench, n_open: int, turns: int) -> dict[str, list[Turn]]:
    found: dict[str, list[Turn]] = {NOBODY: [], f"{n_open} dashboards": []}
    with running_stack(bench.scratch / "stack") as stack:
        field = Field(stack, Api(stack.gateway_url, stack.api_token))
        homes = bench.scratch / "clients"
        for ready in hospitals(field, bench.data, homes, list(bench.sites)):
            turn(ready, bench, 0)  # workers load torch
            for number in range(turns):
                each = [(name, n_open if name != NOBODY else 0) for name in found]
                for name, looking in each if number % 2 == 0 else each[::-1]:
                    found[name].append(turn(ready, bench, looking))
    return found


def table(found: dict[str, list[Turn]]) -> str:
    rows = []
    plain = statistics.median(s for one in found[NOBODY] for s in one.rounds)
    for name, turns in found.items():
        rounds = [seconds for one in turns for seconds in one.rounds]
        latencies = sorted(ms for one in turns for ms in one.latencies)
        cuts = statistics.quantiles(latencies, n=100) if latencies else []
        n_rounds = [len(one.rounds) + WARM_UP for one in turns]
        rows.append(
            [
                name,
                spread(rounds, ".3f"),
                f"{100 * (statistics.median(rounds) / plain - 1):+.1f} %",
                *(
                    spread(
                        [
                            1000 * float(getattr(one, who)) / n
                            for one, n in zip(turns, n_rounds, strict=True)
                        ]
                    )
                    for who in ("gateway", "front", "readers")
                ),
                spread([one.memory for one in turns]),
                spread([one.bytes_each / 1024 for one in turns], ".1f"),
                f"{cuts[49]:.0f} / {cuts[98]:.0f}" if cuts else "-",
            ]
        )
    header = ["", "a round, s", "added", "gateway, ms a round", "front, ms a round",
              "readers, ms a round", "gateway, MiB", "KiB/s a page",
              "commit to page, ms: p50 / p99"]  # fmt: skip
    return markdown(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.dashboards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--open", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20, help="after two of warm-up")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=TRAIN["local_epochs"], help="of each round")
    parser.add_argument("--look", help=argparse.SUPPRESS)
    parser.add_argument("--state-dir", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.look:
        from flowerbed.embedded.stack import Stack

        stack = Stack(options.state_dir)
        asyncio.run(look(stack.gateway_url, stack.api_token, options.look, options.open))
        return 0
    TRAIN["local_epochs"] = options.epochs
    with prepared(options.rounds, 7) as bench:
        print(table(measure(bench, options.open, options.turns)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
