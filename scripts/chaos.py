"""Federations on real data while everything is killed, stopped, cut off and filled up.

    python -m scripts.chaos --seed 7 --federations 100        (or: make chaos)

Starts a stack and four runners of its own, runs each spec once undisturbed, then federations in
batches while faults go on, and at the end checks every event store, JetStream, S3 and the
runners' journals. Exit code 0 only if every column of the table is 0.

A seed decides federations and faults. It does not decide which instruction a fault meets.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from scripts.faults import plan
from scripts.faults.checker import Column, check
from scripts.faults.disks import Disks
from scripts.faults.gather import gather
from scripts.faults.ground import SITES, Ground, Shape
from scripts.faults.inject import Injector
from scripts.faults.load import Load
from scripts.faults.report import is_clean, show
from tests.support.field import Field

TICK = 0.1
STUCK = 300.0
"""Seconds without the end of any federation after which the faults stop."""
PATIENCE = 240.0
"""Seconds that open federations get to end once all faults are over."""


@dataclass(slots=True)
class Chaos:
    ground: Ground
    seed: int
    n_federations: int
    batch: int
    deck: list[tuple[plan.Kind, str]]
    n_faults: int | None = None
    """After so many no more; None: until the last federation has ended."""
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def undisturbed(self) -> dict[str, str]:
        """The final checkpoint of each spec, before anything breaks."""
        field_ = Field(self.ground.stack, self.ground.api, self.ground.sites)
        found = {}
        for name in plan.SPECS:
            federation = field_.completed(field_.submit(plan.document(name)), seconds=180)
            found[name] = federation["final"]["sha256"]
            self.say(f"undisturbed: {name} gives {found[name][:12]}")
        return found

    def run(self, undisturbed: Mapping[str, str], specs: Sequence[str]) -> list[Column]:
        """Federations of `specs`, and faults, to the end. `undisturbed`: digests, by spec."""
        load = Load(
            stack=lambda: self.ground.stack,
            planned=plan.federations(self.seed, self.n_federations, specs),
            batch=self.batch,
            key=f"chaos-{self.seed}",
            said=self.say,
        )
        injector = Injector(self.ground)
        load.start()
        try:
            self.break_things(load, injector)
            self.end_well(load, injector)
        finally:
            load.stop()
        self.say(f"{injector.done} faults done to {len(load.all)} federations; checking")
        return self.checked(load, undisturbed)

    def checked(self, load: Load, undisturbed: Mapping[str, str]) -> list[Column]:
        expected = {
            one.federation_id: undisturbed[one.planned.spec]
            for one in load.all
            if one.planned.order != "cancel" and one.planned.spec in undisturbed
        }
        ground, gaps = self.ground, frozenset(load.gaps)
        return check(
            asyncio.run(gather(ground.stack, ground.homes(), expected=expected, gaps=gaps))
        )

    def break_things(self, load: Load, injector: Injector) -> None:
        """One fault after the other until the last federation has ended, or none ends any more."""
        for fault in islice(plan.faults(self.seed, self.deck, SITES), self.n_faults):
            due = time.monotonic() + fault.after
            while time.monotonic() < due and not load.is_done:
                self.tend(injector)
                time.sleep(TICK)
            if load.is_done:
                return
            if time.monotonic() - load.ended_at > STUCK:
                return self.say(f"nothing has ended for {STUCK:g} s: no more faults")
            is_done = injector.inject(fault)
            self.say(f"{fault}{'' if is_done else ' (not there just now)'}")

    def tend(self, injector: Injector) -> None:
        injector.take_back()
        for name in self.ground.tend():
            self.say(f"{name} is started again from outside")

    def end_well(self, load: Load, injector: Injector) -> None:
        injector.take_back(all_=True)
        self.ground.until_well()
        end = time.monotonic() + PATIENCE
        while not load.is_done and time.monotonic() < end:
            time.sleep(TICK)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    has_disks = Disks.can_mount()
    shape = Shape(replicas=options.replicas, nats_nodes=options.nats_nodes, has_disks=has_disks)
    try:
        deck = plan.chosen(plan.targets(shape, SITES), options.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    root = Path(tempfile.mkdtemp(prefix="flowerbed-chaos-"))
    root.chmod(0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack is stopped
    print(*_plan(seed, options.federations, deck), sep="\n", flush=True)
    if not has_disks:
        print("no full disks among the faults: mounting one needs root")
    ground = Ground(root, shape)
    columns: list[Column] = []
    try:
        ground.start()
        chaos = Chaos(ground, seed, options.federations, options.batch, deck)
        columns = chaos.run(chaos.undisturbed(), (*plan.SPECS, *plan.POLICIES))
    finally:
        is_kept = options.keep and not is_clean(columns)
        ground.stop(keep=is_kept)
    show(columns)
    if is_kept:
        print(f"the stopped stack is kept in {root}")
    if options.json:
        options.json.write_text(json.dumps({c.name: list(c.findings) for c in columns}, indent=2))
    return 0 if is_clean(columns) else 1


def _plan(seed: int, n: int, deck: Sequence[tuple[plan.Kind, str]]) -> Iterator[str]:
    yield f"seed {seed}: {n} federations, {len(deck)} kinds of faults, again with --seed {seed}"
    orders = [one for one in plan.federations(seed, n) if one.order]
    yield "ordered: " + (", ".join(f"{one.number} {one.order}" for one in orders) or "none")
    first = islice(plan.faults(seed, deck, SITES), len(deck))
    yield "first faults: " + "; ".join(str(fault) for fault in first)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break everything, then check everything.")
    parser.add_argument("--seed", type=int, help="of an earlier run, to have its plan again")
    parser.add_argument("--federations", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4, help="federations open at once")
    parser.add_argument("--replicas", type=int, default=1, help="of each service")
    parser.add_argument("--nats-nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="kill,stop:nats,s3,…"
    )
    parser.add_argument("--keep", action="store_true", help="keep the state when a check fails")
    parser.add_argument("--json", type=Path, help="write the findings there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
