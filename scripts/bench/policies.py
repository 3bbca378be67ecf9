"""What a round policy is worth when one site is slow: wait for all, k of n, and buffered rounds.

    python -m scripts.bench.policies --updates 40 --share 0.05

Starts a stack of its own with the hospitals' four sites, and trains the same model to the same
number of accepted updates under each policy: once with four equal sites, once with one whose
worker process gets a share of the time only (it is stopped and continued in turn; its agent is
not). Every checkpoint is then fetched from S3 and scored on the held-out rows of all sites.
Seconds count from the first round's start, with warm workers, to a round's end, evaluations
included. One run each: the accuracies differ by a row or two between runs where updates are
counted as they come. Prints a table; writes nothing.
"""

import argparse
import asyncio
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import psutil
from rich.console import Console
from rich.table import Table

from flowerbed.cli.api import Api
from flowerbed.embedded.testing import running_stack
from scripts.baselines import Score, evaluate_checkpoint
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.support.field import Field, Site, hospitals, until

POLICIES: Mapping[str, tuple[int, dict[str, Any]]] = {
    "wait for all": (4, {}),
    "3 of 4, late refused": (3, {"close_at": 3}),
    "3 of 4, late counted": (3, {"close_at": 3, "late_updates": "next_round"}),
    "buffered, 3": (3, {"mode": "buffered", "buffer_size": 3}),
}
"""By name: the updates that close a round, and the policy's keys."""
CYCLE, QUIET = 0.2, 1.0
WITHIN = 0.01
"""As accurate as waiting for all means: less than three of the 274 held-out rows apart."""
LONGEST = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """`seconds`: from the first round's start to this one's end."""

    seconds: float
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    rounds: list[Round]
    n_updates: int
    n_late: int

    def seconds_to(self, accuracy: float) -> float | None:
        """When a checkpoint first was as good; None for never."""
        return next((one.seconds for one in self.rounds if one.score.accuracy >= accuracy), None)


@contextmanager
def slowed(site: Site, share: float) -> Iterator[None]:
    """Let the site's worker run for a share of the time only."""
    is_over = threading.Event()

    def turn() -> None:
        while not is_over.is_set():
            _signal(site, signal.SIGCONT)
            is_over.wait(CYCLE * share)
            _signal(site, signal.SIGSTOP)
            is_over.wait(CYCLE * (1 - share))
        _signal(site, signal.SIGCONT)

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _signal(site: Site, number: signal.Signals) -> None:
    try:
        for worker in site.workers():
            worker.send_signal(number)
    except psutil.NoSuchProcess:  # it ended while we looked; the next turn finds another
        pass


def prepared(field: Field, per_round: int, policy: Mapping[str, Any], updates: int) -> str:
    """A federation whose sites have a warm worker each, paused before its first round; its id."""
    document = hospital(
        num_rounds=-(-updates // per_round),
        round_policy={"deadline_seconds": 300.0, **policy},
        train={"local_epochs": 5, "batch_size": 32, "learning_rate": 0.02, "seed": 7},
    )
    identity = field.submit(document)
    field.api.post(f"/federations/{identity}/pause", {"reason": "the workers warm up"})
    until(partial(_all_warm, field), "four workers are warm")
    return identity


def _all_warm(field: Field) -> bool:
    """One worker a site, and none of them is busy with its start."""
    workers = [worker for site in field.sites for worker in site.workers()]
    if len(workers) < len(field.sites):
        return False
    try:
        before = [sum(worker.cpu_times()[:2]) for worker in workers]
        time.sleep(QUIET)
        after = [sum(worker.cpu_times()[:2]) for worker in workers]
    except psutil.NoSuchProcess:
        return False
    return sum(after) - sum(before) < 0.1 * QUIET


async def outcome(field: Field, federation_id: str, data: Path, scratch: Path) -> Outcome:
    history = await field.rows(
        "orchestrator",
        "SELECT type, data::text AS data, recorded_at FROM events WHERE stream = $1"
        " AND type IN ('fl.round.started', 'fl.round.completed') ORDER BY version",
        f"federation-{federation_id}",
    )
    began: datetime = history[0]["recorded_at"]
    rounds = [
        Round(
            seconds=(row["recorded_at"] - began).total_seconds(),
            score=score(field, json.loads(row["data"])["checkpoint"]["uri"], data, scratch),
        )
        for row in history
        if row["type"] == "fl.round.completed"
    ]
    (counts,) = await field.rows(
        "aggregator",
        "SELECT count(*) AS n, count(*) FILTER (WHERE (data->>'staleness')::int > 0) AS late"
        " FROM events WHERE type = 'fl.update.accepted' AND data->>'exchange' = 'train'"
        " AND data->>'federation_id' = $1",
        federation_id,
    )
    return Outcome(rounds=rounds, n_updates=counts["n"], n_late=counts["late"])


def score(field: Field, uri: str, data: Path, scratch: Path) -> Score:
    access = field.stack.s3
    s3 = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name="us-east-1",
    )
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    file = scratch / "checkpoint"
    s3.download_file(bucket, key, str(file))
    return evaluate_checkpoint(data, file).pooled


def show(console: Console, title: str, outcomes: Mapping[str, Outcome]) -> None:
    wanted = outcomes["wait for all"].rounds[-1].score.accuracy - WITHIN
    table = Table(title=title, title_justify="left")
    for column in ("policy", "rounds", "updates", "late", "accuracy", "AUROC", "seconds",
                   f"s to {wanted:.3f}"):  # fmt: skip
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, one in outcomes.items():
        last, reached = one.rounds[-1], one.seconds_to(wanted)
        table.add_row(
            name, str(len(one.rounds)), str(one.n_updates), str(one.n_late),
            f"{last.score.accuracy:.3f}", f"{last.score.auroc or 0.0:.3f}",
            f"{last.seconds:.1f}", "never" if reached is None else f"{reached:.1f}",
        )  # fmt: skip
    console.print(table)


def compare(field: Field, data: Path, scratch: Path, updates: int, share: float) -> None:
    console, slow = Console(width=110), field.sites[0]
    for title, is_slowed in (
        ("Four equal sites", False),
        (f"The worker of {slow.name} gets {share:.0%} of the time", True),
    ):
        outcomes = {}
        for name, (per_round, policy) in POLICIES.items():
            identity = prepared(field, per_round, policy, updates)
            with slowed(slow, share) if is_slowed else nullcontext():
                field.api.post(f"/federations/{identity}/resume", {})
                field.completed(identity, LONGEST)
            outcomes[name] = asyncio.run(outcome(field, identity, data, scratch))
        show(console, title, outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description="Round policies with one slow site.")
    parser.add_argument("--updates", type=int, default=40, help="accepted, under each policy")
    parser.add_argument("--share", type=float, default=0.05, help="of the slow worker's time")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="flowerbed-policies-"))
    try:
        with running_stack(scratch / "stack") as stack:
            field = Field(stack, Api(stack.gateway_url, stack.api_token))
            data = scratch / "data"
            names = [site["name"] for site in prepare("hospital", data, 7)["sites"]]
            for ready in hospitals(field, data, scratch / "clients", names):
                compare(ready, data, scratch, options.updates, options.share)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
