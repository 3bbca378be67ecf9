"""The four measurements. Each takes turns: one after the other of what is compared, then again."""

import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from scripts.bench.backbone.control import role
from scripts.bench.backbone.ground import Ground
from scripts.bench.backbone.sample import READER, WRITER

OURS = "Flowerbed"
TUNED = {"max_workers": 16, "fetch_batch_size": 200, "terminal_flush_batch_size": 100}
LONGEST = 900.0

Found: TypeAlias = dict[str, list[dict[str, float]]]
"""By what was measured; one entry a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One of what is compared: the module that does it, and how it is told to."""

    name: str
    module: str
    role: str
    count: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> str:
        return f"{self.module}:{self.role}"


def in_turn(ways: Sequence[Way], turn: int) -> Sequence[Way]:
    """Forwards, then backwards: whatever drifts meanwhile hits all of them."""
    return ways if turn % 2 == 0 else ways[::-1]


def say(**facts: Any) -> None:
    print(json.dumps(facts), file=sys.stderr, flush=True)


# --- the relay ----------------------------------------------------------------------------------


def relays(count: int, count_default: int) -> list[Way]:
    peer = partial(Way, module="peers", role="relay")
    tuned, plain = ({"subscriber": one} for one in (TUNED, {}))
    return [
        Way(name=OURS, module="ours", role="relay", count=count),
        peer(name="faststream-outbox, tuned", count=count, options=tuned),
        peer(name="faststream-outbox, as it comes", count=count_default, options=plain),
    ]


async def relay(ground: Ground, ways: Sequence[Way], turns: int) -> Found:
    """Events a second from the start of a relay until the last of those waiting is stored."""
    found: Found = {way.name: [] for way in ways}
    for turn in range(turns):
        for way in in_turn(ways, turn):
            one = await _drain(ground, way)
            found[way.name].append(one)
            say(measured="relay", turn=turn, way=way.name, **one)
    return found


async def _drain(ground: Ground, way: Way) -> dict[str, float]:
    await ground.reset()
    await _load(ground, way.module, way.count)
    ours = way.module == "ours"
    await ground.tend("events" if ours else "outbox")
    async with role(way.process, ground.state_dir, **way.options) as relaying:
        before = await ground.wal()
        began = await relaying.go()
        stored = await ground.until_stored(way.count, LONGEST)
        if ours:  # it keeps its place once there is nothing more
            await ground.until_value(WRITER, "SELECT count(*) FROM relay_marks", 1, 30)
        else:
            await ground.until_value(WRITER, "SELECT count(*) FROM outbox", 0, LONGEST)
    written = await ground.wal() - before
    return {"rate": way.count / (stored - began), "wal": written / way.count}


async def _load(ground: Ground, module: str, count: int) -> None:
    async with role(f"{module}:load", ground.state_dir, count=count) as loading:
        await loading.go()
        await loading.told("loaded", LONGEST)


# --- consuming ----------------------------------------------------------------------------------


def consumers(count: int, count_each: int) -> list[Way]:
    peer = partial(Way, module="peers")
    batch = partial(peer, role="consume_batch", count=count)
    return [
        Way(name=OURS, module="ours", role="consume", count=count),
        Way(
            name=f"{OURS}, event by event",
            module="ours",
            role="consume",
            count=count,
            options={"at_once": False},
        ),
        batch(name="FastStream, batches, the same SQL", options={"at_once": False}),
        batch(name="FastStream, batches, one statement a batch", options={"at_once": True}),
        peer(name="FastStream, each event alone", role="consume_each", count=count_each),
    ]


async def consume(ground: Ground, ways: Sequence[Way], turns: int) -> Found:
    """Events a second from the start of a consumer until the last effect is committed."""
    found: Found = {way.name: [] for way in ways}
    count = max(way.count for way in ways)
    for turn in range(turns):
        await ground.reset()
        await _load(ground, "ours", count)
        async with role("ours:relay", ground.state_dir) as relaying:
            await relaying.go()
            await ground.until_stored(count, LONGEST)
        for way in in_turn(ways, turn):
            one = await _project(ground, way, count)
            found[way.name].append(one)
            say(measured="consume", turn=turn, way=way.name, **one)
    return found


async def _project(ground: Ground, way: Way, waiting: int) -> dict[str, float]:
    await ground.reset_reader()
    before = await ground.wal()
    async with role(way.process, ground.state_dir, count=way.count, **way.options) as consuming:
        began = await consuming.go()
        facts = await consuming.told("ended", LONGEST)
        written = await ground.wal() - before
    effects = await ground.value(READER, "SELECT sum(n) FROM sums")
    if way.count == waiting and effects != way.count:
        raise AssertionError(f"{way.name}: {effects} effects of {way.count} events")
    return {"rate": way.count / (facts["ended"] - began), "wal": written / way.count}


# --- from end to end ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A writer, a relay and a consumer, which read and write each other's events."""

    name: str
    module: str
    consumer: str
    subscriber: dict[str, Any] = field(default_factory=dict)


CHAINS = (
    Chain(name=OURS, module="ours", consumer="consume"),
    Chain(
        name="faststream-outbox, tuned, and FastStream",
        module="peers",
        consumer="consume_each",
        subscriber=TUNED,
    ),
)
WARM_UP = 50


async def latency(ground: Ground, rate: int, seconds: float, turns: int) -> Found:
    """Milliseconds from before the write until after the projection's commit, at a rate."""
    found: Found = {chain.name: [] for chain in CHAINS}
    for turn in range(turns):
        for chain in CHAINS if turn % 2 == 0 else CHAINS[::-1]:
            one = await _follow(ground, chain, rate, seconds)
            found[chain.name].append(one)
            say(measured="latency", turn=turn, asked=rate, way=chain.name, **one)
    return found


async def _follow(ground: Ground, chain: Chain, rate: int, seconds: float) -> dict[str, float]:
    await ground.reset()
    where, count = ground.state_dir, WARM_UP + int(rate * seconds)
    told = {"rate": rate, "seconds": seconds, "warm_up": WARM_UP, "connections": 10}
    async with (
        role(f"{chain.module}:relay", where, subscriber=chain.subscriber) as relaying,
        role(f"{chain.module}:{chain.consumer}", where, count=count) as consuming,
        role(f"{chain.module}:write", where, **told) as writing,
    ):
        await relaying.go()
        await consuming.go()
        await ground.until_read()
        await writing.go()
        await ground.until_stored(WARM_UP, 60)
        await writing.go()
        facts = await consuming.told("ended", LONGEST)
    latencies = [1000 * one for one in facts["latencies"]]
    cuts = statistics.quantiles(latencies, n=100)
    kept = len(latencies) / (facts["ended"] - facts["first_at"])
    return {"p50": cuts[49], "p99": cuts[98], "most": max(latencies), "kept": kept}


# --- what the relay costs the writers -----------------------------------------------------------

ON, OFF = "relay on", "relay off"


async def writers(ground: Ground, connections: int, seconds: float, turns: int) -> Found:
    """Commits a second of one event each, with the relay at work and without it."""
    found: Found = {ON: [], OFF: []}
    for turn in range(turns):
        for name in (ON, OFF) if turn % 2 == 0 else (OFF, ON):
            one = await _hammer(ground, connections, seconds, name == ON)
            found[name].append(one)
            say(measured="writers", turn=turn, way=name, **one)
    return found


async def _hammer(
    ground: Ground, connections: int, seconds: float, with_relay: bool
) -> dict[str, float]:
    await ground.reset()
    told = {"connections": connections, "seconds": seconds, "warm_up": 1.0}
    where = ground.state_dir
    async with role("ours:relay", where) as relaying, role("ours:hammer", where, **told) as writing:
        if with_relay:
            await relaying.go()
            await asyncio.sleep(1.0)
        await writing.go()
        facts = await writing.told("n_commits", seconds + 60)
        stored = (await ground.bus.api("STREAM.INFO.FL_LEASE", {}))["state"]["messages"]
        recorded = await ground.value(WRITER, "SELECT count(*) FROM events")
    return {"rate": facts["n_commits"] / seconds, "behind": recorded - stored}
