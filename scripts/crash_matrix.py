"""The crash matrix: kill each service right before and right after every step of every event.

    python -m scripts.crash_matrix                       (or: make crash-matrix)
    python -m scripts.crash_matrix --sample 6 --seed 1

One long-lived stack. For each point one federation of three rounds, in which the service kills
itself when it gets there (`flowerbed.events.failpoints`). The federation must end with the bytes
of an undisturbed one, and the checker must find nothing at the end.

A point that no such federation comes by is listed as not met; it did not pass. Exit code 0 only
if no point failed and the checker found nothing.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from flowerbed.cli.api import CommandFailed
from scripts.faults.checker import ENDED, Column, check
from scripts.faults.gather import gather, stored_events
from scripts.faults.ground import Ground, Shape
from scripts.faults.matrix import MatrixPoint, met, points, sample, spread
from scripts.faults.plan import document
from scripts.faults.report import is_clean, show
from tests.support.field import Field, until

SPEC = "three rounds"
LONGEST = 120.0
OUTCOMES = ("same bytes", "other bytes", "not ended", "not reached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of the federation in which a service died at a point."""

    service: str
    point: str
    event_type: str
    outcome: str
    federation_id: str
    seconds: float


class Matrix:
    def __init__(self, ground: Ground, out: IO[str] | None = None) -> None:
        self._ground = ground
        self._out = out
        self._field = Field(ground.stack, ground.api, ground.sites)
        self._expected: dict[str, str] = {}
        self.sha256 = ""

    def undisturbed(self) -> set[str]:
        """Run one federation in peace; the types of the events that it left."""
        began = time.monotonic()
        identity = self._field.submit(document(SPEC))
        self.sha256 = self._field.completed(identity, 120)["final"]["sha256"]
        self._expected[identity] = self.sha256
        until(lambda: self._are_released(identity), "all leases are released", 30)
        events = asyncio.run(stored_events(self._ground.stack, "gateway"))
        seconds = time.monotonic() - began
        print(f"undisturbed: {self.sha256[:12]} after {seconds:.1f} s", flush=True)
        return {event.type for event in events if event.federation_id == identity}

    def trial(self, point: MatrixPoint) -> Trial:
        """Arm, run a federation, see how it ended and that the point was reached."""
        began = time.monotonic()
        arm(self._ground.failpoint, point)
        identity = self._field.submit(document(SPEC))
        self._expected[identity] = self.sha256
        outcome = self._outcome(identity)
        if self._ground.failpoint.exists():
            self._ground.failpoint.unlink(missing_ok=True)
            outcome = "not reached"
        self._ground.until_well()
        return self._said(point, outcome, identity, time.monotonic() - began)

    def check(self) -> list[Column]:
        ground = self._ground
        return check(asyncio.run(gather(ground.stack, ground.homes(), expected=self._expected)))

    def _outcome(self, identity: str) -> str:
        """Waits past the end for the point too: leases are released after it."""
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            found = self._look(identity) or {}
            has_ended = found.get("status") in ENDED
            if has_ended and (self._are_released(identity) or not self._ground.failpoint.exists()):
                final = (found.get("final") or {}).get("sha256")
                return "same bytes" if final == self.sha256 else "other bytes"
            time.sleep(0.2)
        return "not ended"

    def _look(self, identity: str) -> dict[str, Any] | None:
        try:
            return self._field.api.federation(identity)
        except CommandFailed:
            return None  # the gateway is the one that died

    def _are_released(self, identity: str) -> bool:
        found = self._look(identity)
        clients = found["clients"] if found is not None else []
        return bool(clients) and all(one["status"] == "released" for one in clients)

    def _said(self, point: MatrixPoint, outcome: str, identity: str, seconds: float) -> Trial:
        trial = Trial(
            service=point.service,
            point=point.point,
            event_type=point.event_type,
            outcome=outcome,
            federation_id=identity,
            seconds=round(seconds, 2),
        )
        if self._out is not None:
            self._out.write(json.dumps(asdict(trial)) + "\n")
            self._out.flush()
        return trial


def arm(file: Path, point: MatrixPoint) -> None:
    """Whole or not at all: a service may look at any moment."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(asdict(point)))
    draft.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack is stopped
    root = Path(tempfile.mkdtemp(prefix="flowerbed-matrix-"))
    root.chmod(0o755)
    ground = Ground(root, Shape(replicas=options.replicas, has_links=False, has_disks=False))
    columns: list[Column] = []
    trials: list[Trial] = []
    out = options.json.open("w") if options.json else None
    try:
        ground.start()
        matrix = Matrix(ground, out)
        reached = met(points(), matrix.undisturbed())
        wanted = (
            sample(options.seed, options.sample, reached) if options.sample else spread(reached)
        )
        for number, point in enumerate(wanted, 1):
            trial = matrix.trial(point)
            trials.append(trial)
            text = f"{number:>4}/{len(wanted)} {trial.outcome:<12} {trial.seconds:5.1f} s  {point}"
            print(text, flush=True)
        columns = matrix.check()
    finally:
        if out is not None:
            out.close()
        ground.stop()
    not_met = sorted({p.event_type for p in points()} - {p.event_type for p in reached})
    _summary(trials, not_met)
    show(columns)
    is_good = all(trial.outcome == "same bytes" for trial in trials)
    return 0 if is_good and is_clean(columns) else 1


def _summary(trials: Sequence[Trial], not_met: Sequence[str]) -> None:
    print(f"\n| {'service':<12} | {' | '.join(OUTCOMES)} |")
    print("|---|" + "---|" * len(OUTCOMES))
    for service in sorted({trial.service for trial in trials}):
        counts = Counter(trial.outcome for trial in trials if trial.service == service)
        print(f"| {service:<12} | {' | '.join(str(counts[name]) for name in OUTCOMES)} |")
    print(f"{len(trials)} points tried. No such federation says, so not tried:")
    print("  " + ", ".join(not_met))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill each service at each step of each event.")
    parser.add_argument("--sample", type=int, default=0, help="so many points; all without it")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--replicas", type=int, default=1, help="of each service")
    parser.add_argument("--json", type=Path, help="write a JSON line for each point there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
