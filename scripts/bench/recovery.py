"""What a kill costs: every process of the stack and of a site, killed in the middle of rounds.

    python -m scripts.bench.recovery --kills 20 --seed 1       (or: make recovery)

One federation trains round after round. At a random (seeded) moment of a round one process gets
SIGKILL. Measured for each process, in seconds:

    noticed      until its restart begins: another process has its place
    moves again  until the first event of the federation that could not be there without the
                 process (`scripts/faults/progress.py`); it includes the training under way
    round longer the round in which it died, less the median of the rounds without a kill

`repeated`: pieces of work that were taken up again, anew or from a local checkpoint. The checker
reads everything at the end: its `accepted updates lost`, `counted twice` and `trained twice` must
be 0.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.faults.checker import Column, check
from scripts.faults.gather import gather, runs
from scripts.faults.ground import SITES, Ground, Shape
from scripts.faults.progress import AWAY, Round, copies, events_since, first, needs, rounds
from scripts.faults.report import is_clean, show
from tests.e2e.documents import hospital
from tests.support.field import Field

VICTIMS = (
    "orchestrator", "lease", "aggregator", "artifact", "gateway",
    "postgres", "nats", "s3", "caddy", "supervisor", "agent", "worker",
)  # fmt: skip
LONGEST = 120.0
CLEAN_ROUNDS = 1
"""Between two kills."""
FINE, COARSE = 0.01, 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One trial. Times in seconds since the kill; None: not within LONGEST.

    `into_round`: how far the round was; None: it had just ended.
    """

    victim: str
    process: str
    round_number: int
    into_round: float | None
    noticed: float | None
    moves_again: float | None
    round_seconds: float | None
    n_repeated: int


class Recovery:
    def __init__(self, ground: Ground, seed: int, epochs: int) -> None:
        self.ground = ground
        self.dice = random.Random(f"{seed} recovery")
        self.epochs = epochs
        self.federation = ""
        self.clients: dict[str, str] = {}
        self.usual: list[float] = []
        self._used: set[int] = set()

    async def begin(self) -> None:
        """Submit the federation and let two rounds pass, so that every worker is warm."""
        field = Field(self.ground.stack, self.ground.api, self.ground.sites)
        train = {"local_epochs": self.epochs, "learning_rate": 0.005, "seed": 3}
        document = hospital(num_rounds=10_000, train=train, lease={"ttl_seconds": 60})
        self.federation = field.submit(document)
        await self.round_after(3)
        for site in self.ground.sites:
            self.clients[site.name] = site.client_id

    async def kill(self, victim: str) -> Kill:
        """Wait for a clean round, kill within the next, and watch until a later round ends."""
        await self.new_round()
        await asyncio.sleep(self.dice.uniform(0.0, 1.0) * statistics.median(self.usual))
        name = f"{victim}-{self.dice.choice(SITES)}" if victim in ("agent", "worker") else victim
        process = self.ground.processes().get(name)
        while process is None:
            await asyncio.sleep(COARSE)
            process = self.ground.processes().get(name)
        n_begun, n_copies = self.n_repeated(), await copies(self.ground.stack)
        at = time.time()
        process.signal(signal.SIGKILL)
        noticed = await self.noticed(name, process, at)
        if victim == "gateway":
            moved = await self.copied(n_copies)
        else:
            moved = await self.moved(name, at)
        hit = max((one for one in await self.rounds() if one.began <= at), key=_number)
        await self.round_after(hit.number + 1)
        ended = next(one for one in await self.rounds() if one.number == hit.number)
        self._used |= {hit.number, hit.number + 1}
        is_between = hit.ended is not None and hit.ended <= at
        return Kill(
            victim=victim,
            process=name,
            round_number=hit.number,
            into_round=None if is_between else round(at - hit.began, 3),
            noticed=noticed and round(noticed, 3),
            moves_again=moved and round(moved - at, 3),
            round_seconds=ended.ended and round(ended.ended - ended.began, 3),
            n_repeated=self.n_repeated() - n_begun,
        )

    async def noticed(self, name: str, dead: Any, at: float) -> float | None:
        while time.time() < at + LONGEST:
            now = self.ground.processes().get(name)
            if now is not None and now != dead:
                return time.time() - at
            await asyncio.sleep(FINE)
        return None

    async def moved(self, name: str, since: float) -> float | None:
        needed = needs(name, self.clients.get(name.partition("-")[2], ""))
        end = time.time() + LONGEST
        while time.time() < end:
            with contextlib.suppress(*AWAY):
                events = await events_since(self.ground.stack, self.federation, since)
                if (found := first(events, needed)) is not None:
                    return found
            await asyncio.sleep(COARSE)
        return None

    async def copied(self, before: int) -> float | None:
        """The gateway's copies bear their owners' times, so it is watched instead."""
        end = time.time() + LONGEST
        while time.time() < end:
            with contextlib.suppress(*AWAY):
                if await copies(self.ground.stack) > before:
                    return time.time()
            await asyncio.sleep(FINE)
        return None

    async def new_round(self) -> Round:
        """The next round that begins, after a clean one; learns what a round usually takes."""
        number = max(one.number for one in await self.rounds())
        await self.round_after(number + CLEAN_ROUNDS)
        while True:
            found = await self.rounds()
            self.usual = [
                one.ended - one.began
                for one in found[2:]
                if one.ended is not None and one.number not in self._used
            ]
            if found[-1].ended is None and found[-1].number > number + CLEAN_ROUNDS:
                return found[-1]
            await asyncio.sleep(FINE)

    async def round_after(self, number: int) -> None:
        """Until round `number` has ended."""
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            if any(one.number >= number and one.ended for one in await self.rounds()):
                return
            self.ground.tend()
            await asyncio.sleep(COARSE)
        raise AssertionError(f"round {number} did not end within {LONGEST:g} s")

    async def rounds(self) -> list[Round]:
        while True:
            try:
                return await rounds(self.ground.stack, self.federation)
            except AWAY:
                await asyncio.sleep(COARSE)

    def n_repeated(self) -> int:
        """Times that work was taken up again at all sites: anew, or from a local checkpoint."""
        found = [run for site in self.ground.sites for run in runs(site.name, site.home)]
        works = {(run.site, run.work) for run in found}
        return len(found) - len(works) + sum(run.n_again for run in found)

    async def finish(self) -> list[Column]:
        self.ground.api.post(f"/federations/{self.federation}/cancel", {"reason": "measured"})
        return check(await gather(self.ground.stack, self.ground.homes()))


async def measure(
    ground: Ground, options: argparse.Namespace
) -> tuple[list[Kill], list[Column], list[float]]:
    recovery = Recovery(ground, options.seed, options.epochs)
    await recovery.begin()
    kills: list[Kill] = []
    for turn in range(1, options.kills + 1):
        order = list(options.only or VICTIMS)
        recovery.dice.shuffle(order)  # so that the same one is not killed twice within 30 s
        for victim in order:
            kill = await recovery.kill(victim)
            kills.append(kill)
            print(f"{turn:>3} {json.dumps(asdict(kill))}", file=sys.stderr, flush=True)
    return kills, await recovery.finish(), recovery.usual


def _number(one: Round) -> int:
    return one.number


def table(kills: Sequence[Kill], usual: float) -> str:
    """Markdown: p50 / p95 / max of each figure of each process."""
    lines = [
        "| process | kills | noticed, s | moves again, s | round longer, s | repeated |",
        "|---|---|---|---|---|---|",
    ]
    for victim in dict.fromkeys(kill.victim for kill in kills):
        mine = [kill for kill in kills if kill.victim == victim]
        longer = [
            None if kill.round_seconds is None else max(0.0, kill.round_seconds - usual)
            for kill in mine
        ]
        lines.append(
            f"| {victim} | {len(mine)} | {spread([kill.noticed for kill in mine])}"
            f" | {spread([kill.moves_again for kill in mine])} | {spread(longer)}"
            f" | {sum(kill.n_repeated for kill in mine)} |"
        )
    return "\n".join(lines)


def spread(values: Sequence[float | None]) -> str:
    """`p50 / p95 / max`; a trial that never came to an end is said."""
    there = sorted(value for value in values if value is not None)
    if not there:
        return "never"
    p95 = statistics.quantiles(there, n=20, method="inclusive")[-1] if len(there) > 1 else there[0]
    text = f"{statistics.median(there):.2f} / {p95:.2f} / {there[-1]:.2f}"
    missing = len(values) - len(there)
    return f"{text} ({missing} never)" if missing else text


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack is stopped
    root = Path(tempfile.mkdtemp(prefix="flowerbed-recovery-"))
    root.chmod(0o755)
    shape = Shape(replicas=options.replicas, has_links=False, has_disks=False)
    ground = Ground(root, shape)
    try:
        ground.start()
        kills, columns, rounds_ = asyncio.run(measure(ground, options))
    finally:
        ground.stop()
    usual = statistics.median(rounds_)
    print(f"a round without a kill: {usual:.2f} s (median of {len(rounds_)}), seed {options.seed}")
    print(table(kills, usual))
    show(columns)
    return 0 if is_clean(columns) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a kill of each process costs.")
    parser.add_argument("--kills", type=int, default=20, help="of each process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=500, help="local epochs: a round's length")
    parser.add_argument("--replicas", type=int, default=1, help="of each service")
    parser.add_argument("--only", type=lambda text: text.split(","), help="these processes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
