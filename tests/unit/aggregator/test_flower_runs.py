"""A federation's Flower run: started once, taken up in another when it has ended or is silent."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from flowerbed.aggregator import flower_runs
from flowerbed.aggregator.flower_runs import (
    FIRST_BEAT_SECONDS,
    SILENT_SECONDS,
    Beats,
    FlowerRuns,
    OneRun,
)
from flowerbed.aggregator.superlink import FlowerNode, FlowerRun
from flowerbed.contracts.relay import RelayNode, RelayNodes
from tests.support.federations import FED, NOON, created


def key_of(lease_id: str) -> str:
    return f"ecdsa-sha2-nistp384 {lease_id * 180}"


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


@dataclass
class FakeLink:
    """A SuperLink that starts what it is told, and may forget all of it."""

    started: list[FlowerRun] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    inside: dict[str, str] = field(default_factory=dict)
    out: list[int] = field(default_factory=list)
    n_started: int = 0

    def let_in(self, federation_id: str, keys: dict[str, str]) -> None:
        assert federation_id == FED
        self.inside = keys

    def unregister(self, node_id: int) -> None:
        self.out.append(node_id)

    def nodes(self) -> list[FlowerNode]:
        names = ((7, FED), (8, "fed-over"))
        return [FlowerNode(node_id=n, federation_id=fed, key=b"") for n, fed in names]

    def run(self, run_id: int) -> FlowerRun | None:
        return next((run for run in self.started if run.run_id == run_id), None)

    def runs(self) -> list[FlowerRun]:
        return list(self.started)

    def newest(self, federation_id: str) -> FlowerRun | None:
        return self.started[-1] if self.started else None

    def start(self, federation_id: str, tenant: str, attempt: int, fab: bytes) -> FlowerRun:
        self.n_started += 1
        run = FlowerRun(
            run_id=100 + self.n_started, federation_id=federation_id, attempt=attempt, ended=None
        )
        self.started.append(run)
        return run

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)
        self.end(run_id, "stopped")

    def end(self, run_id: int, how: str) -> None:
        self.started = [
            FlowerRun(run_id=one.run_id, federation_id=FED, attempt=one.attempt, ended=how)
            if one.run_id == run_id
            else one
            for one in self.started
        ]


class FakeWorks:
    def __init__(self, *leases: str) -> None:
        self.leases = list(leases)

    async def nodes(self) -> RelayNodes:
        nodes = [
            RelayNode(client_id=f"client-{one}", lease_id=one, node_key=key_of(one))
            for one in self.leases
        ]
        return RelayNodes(nodes=tuple(nodes), now=NOON)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(flower_runs, "time", clock)
    return clock


def watching(link: Any, works: Any, beats: Beats | None = None) -> OneRun:
    runs = FlowerRuns(
        bridge=None,  # type: ignore[arg-type]  # the bundle is there
        superlink=link,
        lease_url=(),
        token=SecretStr("t"),
        beats=beats or Beats(),
    )
    one = OneRun(runs, works, "acme", created(runtime="superlink"))
    one._fab = b"fab"
    return one


def attempts(link: FakeLink) -> list[int]:
    return [run.attempt for run in link.started]


async def test_a_run_is_started_once_somebody_can_work(clock: Clock) -> None:
    link, works = FakeLink(), FakeWorks()
    one = watching(link, works)
    await one.look()
    assert link.started == []
    works.leases = ["a", "b"]
    for _ in range(3):
        await one.look()
    assert (link.inside, attempts(link)) == ({"a": key_of("a"), "b": key_of("b")}, [1])


async def test_the_supernode_of_a_lease_that_is_lost_is_kept_out(clock: Clock) -> None:
    link, works = FakeLink(), FakeWorks("a", "b")
    one = watching(link, works)
    await one.look()
    works.leases = ["b", "c"]
    await one.look()
    assert set(link.inside) == {"b", "c"}


async def test_another_bridge_finds_the_run(clock: Clock) -> None:
    link, works = FakeLink(), FakeWorks("a")
    for _ in range(2):
        await watching(link, works).look()
    assert attempts(link) == [1]


async def test_a_run_that_has_ended_is_followed_by_the_next(clock: Clock) -> None:
    link = FakeLink()
    one = watching(link, FakeWorks("a"))
    await one.look()
    link.end(101, "failed: Task failed with unknown error.")
    await one.look()
    await one.look()
    assert attempts(link) == [1, 2]
    assert link.stopped == []


async def test_a_silent_serverapp_is_replaced_and_one_that_is_heard_is_not(clock: Clock) -> None:
    link, beats = FakeLink(), Beats()
    one = watching(link, FakeWorks("a"), beats)
    await one.look()
    for _ in range(10):
        clock.at += SILENT_SECONDS - 1
        beats.hear(FED, 1)
        await one.look()
    assert attempts(link) == [1]
    clock.at += SILENT_SECONDS + 1
    await one.look()
    assert (attempts(link), link.stopped) == ([1, 2], [101])


async def test_a_serverapp_has_time_to_start(clock: Clock) -> None:
    link, beats = FakeLink(), Beats()
    beats.hear(FED, 1)  # of a run that a SuperLink has forgotten since
    clock.at += 100
    one = watching(link, FakeWorks("a"), beats)
    await one.look()
    clock.at += FIRST_BEAT_SECONDS - 1
    await one.look()
    assert attempts(link) == [1]
    clock.at += 2
    await one.look()
    assert attempts(link) == [1, 2]


async def test_a_run_that_the_superlink_has_forgotten_is_started_anew(clock: Clock) -> None:
    link = FakeLink()
    one = watching(link, FakeWorks("a"))
    await one.look()
    link.started.clear()
    for _ in range(3):
        await one.look()
    assert attempts(link) == [1]


async def test_what_is_left_of_a_federation_that_is_over_is_swept_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that ends by itself in between is left to it."""

    async def only_fed(*_: Any) -> list[Any]:
        return [("acme", created(runtime="superlink"))]

    class Bridge:
        database = None

    monkeypatch.setattr(flower_runs, "open_federations", only_fed)
    link = FakeLink()
    link.start(FED, "acme", 1, b"")
    link.started.append(FlowerRun(run_id=1, federation_id="fed-over", attempt=3, ended=None))
    runs = FlowerRuns(
        bridge=Bridge(),  # type: ignore[arg-type]
        superlink=link,  # type: ignore[arg-type]
        lease_url=(),
        token=SecretStr("t"),
    )
    seen = await runs._swept(set())
    assert (link.out, link.stopped) == ([8], [])
    await runs._swept(seen)
    assert link.stopped == [1]
