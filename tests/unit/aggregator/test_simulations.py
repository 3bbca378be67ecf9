"""A simulation's process is kept for as long as its federation is open, whatever happens to it."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from flowerbed.aggregator import simulations
from flowerbed.aggregator.simulation.assignment import Assignment
from flowerbed.aggregator.simulations import Ground, Simulations
from flowerbed.contracts.topology import partition
from flowerbed.events.database import Database
from tests.support.federations import FED, created


async def test_a_process_that_ends_or_cannot_start_is_started_again_until_the_federation_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    is_open, lives, at_work, ended = [True], list[int](), asyncio.Event(), asyncio.Event()

    async def found(database: Any, runtime: str) -> list[Any]:
        assert runtime == "simulation"
        federation = created(runtime="simulation", simulation={"clients": 3})
        return [("acme", federation)] if is_open[0] else []

    async def process(assignment: Assignment) -> int:
        assert (assignment.tenant, assignment.simulation.clients) == ("acme", 3)
        lives.append(len(lives))
        if len(lives) == 1:
            return -9
        if len(lives) == 2:
            raise OSError("no space left on device")
        at_work.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0

    monkeypatch.setattr(simulations, "open_federations", found)
    monkeypatch.setattr(simulations, "run_process", process)
    monkeypatch.setattr(simulations, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(simulations, "FIRST_WAIT", 0.01)
    secret = SecretStr("x")
    ground = Ground(
        lease_urls=("http://127.0.0.1:1",), internal_token=secret, s3_endpoint="http://a",
        s3_access_key="x", s3_secret_key=secret, bucket="b", spool=tmp_path, runs_pushed_apps=True,
    )  # fmt: skip
    kept = Simulations(cast(Database, None), ground)
    running = asyncio.create_task(kept.run(partition(FED)))
    await asyncio.wait_for(at_work.wait(), 10)
    assert len(lives) == 3
    is_open[0] = False
    kept.wake(FED)
    await asyncio.wait_for(ended.wait(), 10)
    running.cancel()
