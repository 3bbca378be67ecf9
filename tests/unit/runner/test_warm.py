"""The agent's side of a worker: it is kept warm, started again when it dies, and never trusted."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from flowerbed.flower_apps import nursery as nurseries
from flowerbed.flower_apps.nursery import Fresh, Nursery
from flowerbed.runner.errors import Refused
from flowerbed.runner.pipe import Hello, Request
from flowerbed.runner.warm import MOST_DEATHS, Worker, environment
from tests.support.servers import eventually

COMMAND = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))
Starter = Fresh | Nursery
Make = Callable[..., Worker]


@pytest.fixture(params=[Fresh, Nursery])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Starter]:
    one: Starter = request.param(COMMAND, environment(os.environ))
    yield one
    await one.close()


@pytest.fixture
def worker_that(start: Starter) -> Make:
    def made(behaves: str, starts: Path | None = None) -> Worker:
        path = f"{behaves}:{starts}" if starts else behaves
        return Worker(Hello(app="x", data_path=path, run_id=1, node_id=1), start)

    return made


def request(seed: int = 1) -> Request:
    return Request(
        message_type="train", base_path="", folder="", has_update=False, config={}, seed=seed
    )


async def test_worker_stays_between_orders(worker_that: Make) -> None:
    worker = worker_that("works")
    await worker.preload()
    pid = worker.pid
    results = await asyncio.gather(*(worker.run(request(seed)) for seed in range(3)))
    assert [result.metrics["seed"] for result in results] == [0, 1, 2]
    assert worker.pid == pid
    await worker.close()
    await worker.close()
    assert worker.pid is None


async def test_order_of_a_worker_that_died_is_repeated(worker_that: Make, tmp_path: Path) -> None:
    worker = worker_that("dies-once", tmp_path / "starts")
    assert (await worker.run(request(5))).metrics == {"seed": 5}
    await worker.close()
    assert len((tmp_path / "starts").read_text().split()) == 2


@pytest.mark.parametrize("behaves", ["dies", "babbles"])
async def test_order_that_no_worker_survives_is_given_up(
    worker_that: Make, behaves: str, tmp_path: Path
) -> None:
    worker = worker_that(behaves, tmp_path / "starts")
    with pytest.raises(Refused) as refused:
        await worker.run(request())
    assert refused.value.code == "worker-died"
    assert len((tmp_path / "starts").read_text().split()) == MOST_DEATHS
    await worker.close()


async def test_app_that_does_not_load_fails_its_orders_one_by_one(worker_that: Make) -> None:
    worker = worker_that("does-not-load")
    await worker.preload()
    for _ in range(2):
        with pytest.raises(Refused, match="the app could not be loaded\nImportError"):
            await worker.run(request())
    await worker.close()


async def test_bad_reply_leaves_the_worker_alive(worker_that: Make) -> None:
    worker = worker_that("fails")
    with pytest.raises(Refused) as refused:
        await worker.run(request())
    assert (refused.value.code, refused.value.detail) == ("bad-reply", "no arrays")
    assert worker.pid is not None
    await worker.close()


async def test_order_that_is_cancelled_ends_its_worker(worker_that: Make) -> None:
    worker = worker_that("hangs")
    await worker.preload()
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.run(request()), 0.05)
    assert not process.is_running()
    assert worker.pid is None


async def test_closed_worker_starts_no_other_for_the_order_it_had(
    worker_that: Make, tmp_path: Path
) -> None:
    worker = worker_that("hangs", tmp_path / "starts")
    await worker.preload()
    running = asyncio.create_task(worker.run(request()))
    await asyncio.sleep(0.05)
    await worker.close()
    with pytest.raises(Refused, match="the worker is closed"):
        await running
    assert len((tmp_path / "starts").read_text().split()) == 1


async def test_worker_that_is_closed_while_it_starts_is_ended(worker_that: Make) -> None:
    worker = worker_that("hangs")
    starting = asyncio.create_task(worker.run(request()))
    await asyncio.sleep(0)
    await worker.close()
    with pytest.raises(Refused, match="the worker is closed"):
        await starting
    assert worker.pid is None


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    one = Nursery(COMMAND, environment(os.environ))
    yield one
    await one.close()


def nursed(nursery: Nursery, behaves: str) -> Worker:
    return Worker(Hello(app="x", data_path=behaves, run_id=1, node_id=1), nursery)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_workers_of_a_nursery_die_with_it_and_another_takes_the_order(
    nursery: Nursery,
) -> None:
    worker, other = nursed(nursery, "works"), nursed(nursery, "hangs")
    await asyncio.gather(worker.preload(), other.preload())
    assert worker.pid is not None and other.pid is not None
    first, mother = psutil.Process(worker.pid), psutil.Process(worker.pid).parent()
    assert mother is not None and mother.pid == psutil.Process(other.pid).ppid()
    mother.kill()
    await eventually(lambda: is_gone(first), "it is dead")
    assert (await worker.run(request(3))).metrics == {"seed": 3}
    assert worker.pid != first.pid
    await asyncio.gather(worker.close(), other.close())


async def test_a_nursery_whose_end_is_not_told_yet_is_not_asked_again(nursery: Nursery) -> None:
    worker = nursed(nursery, "works")
    await worker.preload()
    mother = psutil.Process(worker.pid).parent()
    assert mother is not None
    await worker.close()
    mother.kill()
    while not is_gone(mother):
        time.sleep(0.01)  # noqa: ASYNC251  # the loop hears of nothing meanwhile
    again = nursed(nursery, "works")
    assert (await again.run(request(5))).metrics == {"seed": 5}
    await again.close()


async def test_what_a_dead_nursery_was_asked_is_not_taken_for_the_next_ones(
    nursery: Nursery,
) -> None:
    worker = await nursery("x")
    psutil.Process(worker.pid).parent().kill()  # type: ignore[union-attr]  # it has one
    assert nursery._hearing is not None and nursery._process is not None
    await asyncio.wait({nursery._hearing})
    await worker.end()
    nursery._process = Untold(nursery._process)  # type: ignore[assignment]
    with pytest.raises(ConnectionError):
        await nursery("x")
    other = await asyncio.wait_for(nursery("x"), 60)
    assert psutil.pid_exists(other.pid)
    await other.end()


class Untold:
    """A process that has ended, before the event loop is told of it."""

    returncode = None

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.kill, self.wait = process.kill, process.wait


async def test_a_nursery_without_workers_is_ended_and_comes_back(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nurseries, "IDLE_SECONDS", 0.05)
    worker = nursed(nursery, "works")
    await worker.preload()
    mother = psutil.Process(worker.pid).parent()
    assert mother is not None
    await worker.close()
    await eventually(lambda: is_gone(mother), "it is ended")
    again = nursed(nursery, "works")
    assert (await again.run(request(4))).metrics == {"seed": 4}
    await again.close()


async def test_a_worker_says_how_it_ended(nursery: Nursery) -> None:
    process = await nursery("x")
    os.kill(process.pid, signal.SIGTERM)
    assert (await process.wait(), process.returncode) == (-signal.SIGTERM, -signal.SIGTERM)
    await process.close()
    other = await nursery("x")
    other.stdin.close()
    assert await other.wait() != 0, "it was told nothing at all"
    await other.close()
