"""Where the overhead of a Flowerbed round goes: the gap before each step, from recorded times.

    python -m scripts.bench.round_steps --rounds 20 --seed 7

Runs the same federation as `rounds`, then follows each exchange along the client whose report came
last; the other clients' steps lie beside its own. The times are those that are recorded anyway:

    recorded   `recorded_at` of the event in the service that owns it, just before its commit
    in NATS    when JetStream stored the message
    a site's   its log and its journal, in milliseconds

The gaps of an exchange add up to its time: median over the rounds, without the two of warm-up.
All of it runs on one machine, so there is one clock.
"""

import argparse
import asyncio
import json
import os
import re
import sqlite3
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import nats

from flowerbed.contracts.topology import STREAMS, inbox_prefix
from flowerbed.embedded.stack import Stack
from scripts.bench.rounds import WARM_UP, prepared
from tests.support.field import Field, Site

OPENING = {"train": "fl.round.started", "evaluate": "fl.round.evaluation_started"}
CLOSING = {"train": "fl.round.evaluation_started", "evaluate": "fl.round.completed"}
STEPS = (
    "the exchange is recorded, and in NATS",
    "lease service: the site has the order",
    "site: checked, the run is in its journal",
    "site: base, worker, result in its journal",
    "site: uploaded, the report is recorded",
    "the report is in NATS",
    "aggregator: fetched, screened, accepted",
    "aggregator: folded, checkpoint in S3, closed",
    "the aggregate is in NATS",
    "artifact: read back, recorded",
    "the artifact is in NATS",
    "orchestrator: the next exchange, or the round's end, is recorded",
)
ARTIFACT = slice(9, 11)
"""The steps that an evaluation does not have."""
IN_APP = 3
_TAKEN_UP = re.compile(r"^(\S+ \S+) INFO \S+ (\S+): attempt \d+ begins$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`at` and `stored`: recorded, and in NATS; seconds since 1970."""

    type: str
    data: Mapping[str, Any]
    at: float
    stored: float

    def is_of(self, number: int, exchange: str) -> bool:
        told = self.data.get("exchange", exchange)
        return bool(self.data.get("round_number") == number and told == exchange)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One client's work as its site wrote it down."""

    taken_up: float
    begun: float
    finished: float
    in_app: float


@dataclass(frozen=True, slots=True)
class Steps:
    gaps: Sequence[float]
    in_app: float


async def events(field: Field, federation_id: str) -> list[Event]:
    found = []
    for stream in STREAMS:
        stored = await stored_at(field.stack, stream.name)
        rows = await field.rows(
            stream.owner,
            "SELECT id::text AS id, type, data::text AS data, recorded_at FROM events"
            " WHERE meta->>'correlation_id' = $1",
            federation_id,
        )
        found += [
            Event(
                type=row["type"],
                data=json.loads(row["data"]),
                at=row["recorded_at"].timestamp(),
                stored=stored[row["id"]],
            )
            for row in rows
            if row["id"] in stored
        ]
    return found


async def stored_at(stack: Stack, jetstream: str) -> dict[str, float]:
    """When JetStream stored each event of the stream, by the event's id."""
    access = stack.nats_user("admin")
    client = await nats.connect(
        access.url.split(","),
        user=access.user,
        password=access.password,
        inbox_prefix=inbox_prefix("admin").encode(),
    )
    try:
        js = client.jetstream()
        state = (await js.stream_info(jetstream)).state
        found = {}
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await js.get_msg(jetstream, sequence)
            assert message.time is not None
            assert message.headers is not None
            found[message.headers["ce-id"]] = message.time.timestamp()
        return found
    finally:
        await client.close()


def visits(site: Site) -> dict[tuple[int, str], Visit]:
    """By round and exchange; of a site that did each piece of work once."""
    log = (site.home / "client.log").read_text()
    taken_up = {
        tuple(work.split(".")[-4:-1]): datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        for at, work in _TAKEN_UP.findall(log)
    }
    query = (
        "SELECT f.round_number, f.exchange, r.started_at, f.finished_at, f.train_seconds"
        " FROM finished f JOIN runs r USING (work)"
    )
    path = f"file:{site.home / 'journal.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=10)) as connection:
        rows = connection.execute(query).fetchall()
    return {
        (number, exchange): Visit(
            taken_up=taken_up[str(number), "1", exchange],
            begun=datetime.fromisoformat(begun).timestamp(),
            finished=datetime.fromisoformat(finished).timestamp(),
            in_app=seconds,
        )
        for number, exchange, begun, finished, seconds in rows
    }


def followed(
    found: Sequence[Event],
    sites: Mapping[str, Mapping[tuple[int, str], Visit]],
    number: int,
    exchange: str,
) -> Steps:
    """One exchange, along the client whose report came last."""

    def of(kind: str) -> list[Event]:
        return [one for one in found if one.type == kind and one.is_of(number, exchange)]

    def last(kind: str) -> Event:
        return max(of(kind), key=lambda one: one.at)

    (opened,) = of(OPENING[exchange])
    (closed,) = of(CLOSING[exchange])
    report, accepted = last("fl.update.submitted"), last("fl.update.accepted")
    aggregate = last("fl.aggregate.completed")
    visit = sites[report.data["client_id"]][number, exchange]
    moments = [
        opened.at, opened.stored, visit.taken_up, visit.begun, visit.finished,
        report.at, report.stored, accepted.at, aggregate.at, aggregate.stored,
    ]  # fmt: skip
    if exchange == "train":
        artifact = next(
            one for one in of("fl.artifact.recorded") if one.data["kind"] == "checkpoint"
        )
        moments += [artifact.at, artifact.stored]
    gaps = [after - before for before, after in pairwise([*moments, closed.at])]
    gaps[IN_APP] -= visit.in_app
    return Steps(gaps, visit.in_app)


def table(train: Sequence[Steps], evaluate: Sequence[Steps]) -> str:
    def median(of: Sequence[Steps], step: int) -> float:
        return 1000 * statistics.median(one.gaps[step] for one in of)

    def in_all(of: Sequence[Steps]) -> float:
        return 1000 * statistics.median(sum(one.gaps) for one in of)

    lines = ["| step | training, ms | evaluation, ms |", "|---|---|---|"]
    for step, name in enumerate(STEPS):
        if ARTIFACT.start <= step < ARTIFACT.stop:
            second = "-"
        else:
            place = step if step < ARTIFACT.start else step - 2
            second = f"{median(evaluate, place):.0f}"
        lines.append(f"| {name} | {median(train, step):.0f} | {second} |")
    lines.append(f"| all of it | {in_all(train):.0f} | {in_all(evaluate):.0f} |")
    in_app = [1000 * statistics.median(one.in_app for one in of) for of in (train, evaluate)]
    lines.append(f"| not counted: in the app | {in_app[0]:.0f} | {in_app[1]:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Where the overhead of a round goes.")
    parser.add_argument("--rounds", type=int, default=20, help="measured, after the warm-up")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    with prepared(options.rounds, options.seed) as bench, bench.trained() as (field, federation):
        found = asyncio.run(events(field, federation["federation_id"]))
        sites = {site.client_id: visits(site) for site in field.sites}
    numbers = range(WARM_UP + 1, WARM_UP + options.rounds + 1)
    train, evaluate = (
        [followed(found, sites, number, exchange) for number in numbers] for exchange in OPENING
    )
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, {options.rounds} rounds, seed {options.seed}")
    print(table(train, evaluate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
