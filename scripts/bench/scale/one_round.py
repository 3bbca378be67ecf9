"""A whole round with all simulated runners: real orders, real updates through S3, the real fold."""

import asyncio
import math
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from scripts.bench.models import phases, say
from scripts.bench.scale.crowd import Crowds, Found
from scripts.bench.scale.growth import LONGEST, Scale, Usage, waiting
from scripts.bench.scale.tables import milliseconds, table
from tests.support.field import ENDED, Field

TENSORS = 4
LOOK = 1.0
ASK_EVERY = 5.0
FLOAT = 4
STEPS = ("train: ordered", "train: uploaded", "train: reported", "evaluate: ordered",
         "evaluate: reported")  # fmt: skip
GENERATOR = "generator"

_MOMENTS = """
SELECT type, (data ->> 'round_number')::int AS number, length(data::text) AS size,
    extract(epoch FROM recorded_at)::float8 AS at
FROM events WHERE meta ->> 'correlation_id' = $1
"""


@dataclass(frozen=True, slots=True)
class Span:
    """From one moment to another, seconds since 1970."""

    name: str
    began: float
    ended: float


@dataclass(slots=True)
class Watch:
    """Processor seconds by process group, looked at again and again while the round runs."""

    control: Field
    crowds: Crowds
    seen: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop, usage = threading.Event(), Usage(self.control)

        def look() -> None:
            while not stop.is_set():
                used = {**usage.look(), GENERATOR: self.crowds.cpu_seconds()}
                self.seen.append((time.time(), used))
                stop.wait(LOOK)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            stop.set()
            looking.join()

    def within(self, span: Span) -> Mapping[str, float]:
        """Between the looks that were next to its ends."""
        first, last = (
            min(self.seen, key=lambda one: abs(one[0] - at))[1] for at in (span.began, span.ended)
        )
        return {name: seconds - first.get(name, 0.0) for name, seconds in last.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """One federation from its submission to its end."""

    runners: int
    update: int
    submitted: float
    events: Sequence[Mapping[str, Any]]
    phases: Sequence[Mapping[str, float]]
    found: Found
    watch: Watch

    def at(self, kind: str, number: int) -> float:
        """When the last event of this kind in the round was recorded."""
        return max(
            float(one["at"])
            for one in self.events
            if one["type"] == f"fl.{kind}" and one["number"] == number
        )

    def spans(self, number: int) -> list[Span]:
        """The exchanges of a round; the first one has all runners join before it."""
        began, evaluated, ended = (
            self.at(kind, number)
            for kind in ("round.started", "round.evaluation_started", "round.completed")
        )
        spans = [Span("training", began, evaluated), Span("evaluation", evaluated, ended)]
        return [Span("joining", self.submitted, began), *spans] if number == 1 else spans


def run(scale: Scale, kib: int, rounds: int) -> Whole:
    """All runners that there are take part in a federation of so many rounds."""
    elements = kib * 1024 // FLOAT
    watch = Watch(scale.control, scale.crowds)
    scale.crowds.begin()
    with watch.running():
        submitted = time.time()
        federation = scale.control.submit(
            waiting(
                min_clients=scale.runners,
                num_rounds=rounds,
                train={"seed": 1, "elements": elements, "tensors": TENSORS},
                round_policy={"deadline_seconds": LONGEST, "max_attempts": 1},
            )
        )
        say(step="submitted", federation=federation, runners=scale.runners)
        _wait(scale.control, federation, LONGEST * rounds)
        time.sleep(2 * LOOK)
    found = scale.crowds.found()
    say(step="completed", seconds=round(time.time() - submitted, 1), failed=dict(found.failed))
    events, split = asyncio.run(_recorded(scale.control, federation, rounds))
    return Whole(
        runners=scale.runners, update=FLOAT * elements, submitted=submitted, events=events,
        phases=split, found=found, watch=watch,
    )  # fmt: skip


def _wait(control: Field, federation: str, seconds: float) -> None:
    """Seldom asked: with many clients the answer costs the gateway something."""
    end = time.monotonic() + seconds
    while (found := control.api.federation(federation))["status"] not in ENDED:
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(ASK_EVERY)
    assert found["status"] == "completed", found["reason"]


async def _recorded(
    control: Field, federation: str, rounds: int
) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    events = [
        row
        for owner in ("orchestrator", "lease", "aggregator", "artifact")
        for row in await control.rows(owner, _MOMENTS, federation)
    ]
    return events, await phases(control, federation, rounds)


# --- tables ---------------------------------------------------------------------------------------


def tables(whole: Whole) -> Iterator[str]:
    for number, split in enumerate(whole.phases, start=1):
        yield _split(whole, number, split)
        yield _steps(whole, number)
        yield _processor(whole, number)
    yield _calls(whole.found)
    yield _largest(whole)


def _split(whole: Whole, number: int, split: Mapping[str, float]) -> str:
    """Where the round's time went, by recorded times; each part begins where the last one ends."""
    training = whole.at("round.evaluation_started", number) - whole.at("round.started", number)
    names = [name for name in split if name != "app"]
    cells = [f"{split[name]:.2f}" for name in names]
    rate = f"{whole.runners / training:.0f}"
    mib = f"{whole.runners * whole.update / training / (1 << 20):.1f}"
    head = ("round", *(f"{name}, s" for name in names), "updates/s", "MiB/s")
    return table(head, [(number, *cells, rate, mib)])


def _steps(whole: Whole, number: int) -> str:
    """When the runners had done what, from the start of the exchange."""
    spans = {span.name: span for span in whole.spans(number)}
    following = number < len(whole.phases)
    end = whole.at("round.started", number + 1) if following else math.inf
    rows = []
    for step in STEPS:
        span = spans["training" if step.startswith("train") else "evaluation"]
        moments = whole.found.moments.get(step, [])
        after = sorted(at - span.began for at in moments if span.began <= at < end)
        if after:
            middle = statistics.median(after)
            rows.append((step, len(after), f"{after[0]:.2f}", f"{middle:.2f}", f"{after[-1]:.2f}"))
    head = (f"round {number}, runners", "how many", "first, s", "median, s", "last, s")
    return table(head, rows)


def _processor(whole: Whole, number: int) -> str:
    """Processor seconds of each process group in each exchange, and the share of all cores."""
    spans = whole.spans(number)
    used = [whole.watch.within(span) for span in spans]
    names = sorted(used[-1], key=lambda name: -sum(one.get(name, 0.0) for one in used))
    rows = [
        (name, *(_share(one.get(name, 0.0), span) for one, span in
                 zip(used, spans, strict=True)))
        for name in names
        if any(one.get(name, 0.0) >= 0.05 for one in used)
    ]  # fmt: skip
    lengths = (f"{span.name}, {span.ended - span.began:.1f} s" for span in spans)
    return table((f"round {number}: CPU, s (% of a core)", *lengths), rows)


def _share(seconds: float, span: Span) -> str:
    return f"{seconds:.1f} ({100 * seconds / (span.ended - span.began):.0f} %)"


def _calls(found: Found) -> str:
    rows = [
        (kind, len(of), *(milliseconds(of, share) for share in (0.5, 0.99, 1)))
        for kind, of in sorted(found.seconds.items())
    ]
    rows += [(f"failed: {kind}", count, "", "", "") for kind, count in found.failed.items()]
    return table(("call", "how many", "p50, ms", "p99, ms", "most, ms"), rows)


def _largest(whole: Whole) -> str:
    """The largest event of each kind: what a message has to carry grows with the cohort."""
    largest: dict[str, int] = {}
    for one in whole.events:
        largest[one["type"]] = max(largest.get(one["type"], 0), one["size"])
    rows = [
        (kind, size, f"{size / whole.runners:.0f}")
        for kind, size in sorted(largest.items(), key=lambda item: -item[1])[:4]
    ]
    return table(("largest events", "bytes", "bytes per runner"), rows)
