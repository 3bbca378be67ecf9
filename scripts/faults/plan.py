"""What a seed decides: the federations, and the endless sequence of faults.

The same seed and the same shape give the same plan. When a fault meets which event is up to the
machine, so two runs of one plan are not the same run.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from flowerbed.contracts.topology import SERVICES
from scripts.faults.ground import Shape, linked
from tests.e2e.documents import hospital

Kind = Literal["kill", "stop", "cut", "hole", "slow", "fill", "skew", "restart"]
Order = Literal["", "pause", "cancel"]

SERVERS = ("postgres", "backend", "s3", "caddy", "supervisor", "keeper")
AT_SITES = ("agent", "nursery", "worker", "runner-keeper")
PAUSE = (2.0, 6.0)
STOPPED = (1.0, 12.0)
BROKEN = (1.0, 8.0)
SKEWED = (5.0, 15.0)
HOUR = 3600.0
EVERY_PAUSED, EVERY_CANCELLED = 8, 12
SPECS: dict[str, dict[str, Any]] = {
    "three rounds": {"num_rounds": 3, "train": {"local_epochs": 2, "seed": 4}},
    "four rounds": {"num_rounds": 4, "train": {"local_epochs": 10, "seed": 5}},
    "long training": {"num_rounds": 2, "train": {"local_epochs": 60, "seed": 6}},
    "many rounds": {"num_rounds": 8, "train": {"local_epochs": 2, "seed": 7}},
}
"""What is trained by rounds that wait for all: each is run once undisturbed, and those that are
run among faults must end with the same bytes."""
POLICIES: dict[str, dict[str, Any]] = {
    "k of n": {"close_at": 3, "quorum": 0.75, "late_updates": "next_round"},
    "over-selection": {"close_at": 3, "over_select": 1.34},
    "buffered": {"mode": "buffered", "buffer_size": 3},
}
"""Rounds that close without waiting for all: who is in time decides the bytes, so none compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`after`: seconds since the fault before it. `seconds`: until it is taken back, if it is."""

    after: float
    kind: Kind
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        text = f"{self.kind} {self.target}".strip()
        amount = f" by {self.amount:+.0f} s" if self.kind == "skew" else ""
        return f"{text}{amount} for {self.seconds:.1f} s" if self.seconds else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One federation: what it trains and what a person does to it meanwhile."""

    number: int
    spec: str
    order: Order

    def document(self) -> dict[str, Any]:
        return document(self.spec)


def document(spec: str) -> dict[str, Any]:
    """A client that is silent for 20 s is dropped, so some of the stops end in a new lease."""
    trained = SPECS.get(spec, SPECS["four rounds"])
    policy = {"deadline_seconds": 90.0, **POLICIES.get(spec, {})}
    return hospital(**trained, lease={"ttl_seconds": 20}, round_policy=policy)


def federations(seed: int, n: int, specs: Sequence[str] = (*SPECS, *POLICIES)) -> list[Planned]:
    dice = random.Random(f"{seed} federations")
    return [
        Planned(number=number, spec=dice.choice(specs), order=_order(dice))
        for number in range(1, n + 1)
    ]


def targets(shape: Shape, sites: Sequence[str]) -> list[tuple[Kind, str]]:
    """Every fault of this ground, each once. A site's runner and worker stand for all of them."""
    replicas = [
        service if n == 1 else f"{service}-{n}"
        for service in SERVICES
        for n in range(1, shape.replicas + 1)
    ]
    nodes = ["nats" if n == 1 else f"nats-{n}" for n in range(1, shape.nats_nodes + 1)]
    processes = [*replicas, *nodes, *SERVERS, *AT_SITES]
    signals: tuple[Kind, ...] = ("kill", "stop")
    found: list[tuple[Kind, str]] = [(kind, name) for name in processes for kind in signals]
    if shape.has_links:
        breaks: tuple[Kind, ...] = ("cut", "hole", "slow")
        found += [(kind, link) for link in linked(shape.nats_nodes) for kind in breaks]
    if shape.has_disks:
        found += [("fill", "jetstream"), ("fill", "s3")]
    if sites:
        found += [("skew", "")]
    return [*found, ("restart", "")]


def chosen(all_: Sequence[tuple[Kind, str]], only: Sequence[str]) -> list[tuple[Kind, str]]:
    """Those that `only` names: by kind (`kill`), by target (`lease`), or both (`kill:lease`).

    Raises:
        ValueError: a name fits none of them.
    """
    for name in only:
        if not any(_fits(one, name) for one in all_):
            raise ValueError(f"no fault is called {name!r}")
    return [one for one in all_ if not only or any(_fits(one, name) for name in only)]


def faults(seed: int, deck: Sequence[tuple[Kind, str]], sites: Sequence[str]) -> Iterator[Fault]:
    """For ever: every fault of the deck once in a random order, then all of them again."""
    for turn in count():
        dice = random.Random(f"{seed} faults {turn}")
        cards = list(deck)
        dice.shuffle(cards)
        for kind, target in cards:
            yield _fault(dice, kind, target, sites)


def _fault(dice: random.Random, kind: Kind, target: str, sites: Sequence[str]) -> Fault:
    after = dice.uniform(*PAUSE)
    site = dice.choice(list(sites)) if sites else ""
    if target in AT_SITES:
        target = f"{target.removeprefix('runner-')}-{site}"
    match kind:
        case "stop":
            seconds = dice.uniform(*STOPPED)
        case "cut" | "hole" | "slow" | "fill":
            seconds = dice.uniform(*BROKEN)
        case "skew":
            amount = dice.choice((HOUR, -HOUR))
            seconds = dice.uniform(*SKEWED)
            return Fault(after=after, kind=kind, target=site, seconds=seconds, amount=amount)
        case _:
            seconds = 0.0
    return Fault(after=after, kind=kind, target=target, seconds=seconds)


def _order(dice: random.Random) -> Order:
    if dice.randrange(EVERY_PAUSED) == 0:
        return "pause"
    return "cancel" if dice.randrange(EVERY_CANCELLED) == 0 else ""


def _fits(fault: tuple[str, str], name: str) -> bool:
    kind, target = fault
    return name in (kind, target, f"{kind}:{target}")
