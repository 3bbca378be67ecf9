"""Whatever befalls a site, its work goes on by itself: killed, asleep, wrong clock, no data.

Killed or not, the bytes are the same, and no work is trained twice.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowerbed.runner.clock import OFFSET_FILE_VARIABLE
from tests.e2e.documents import hospital
from tests.support.field import Field, Site, until

HOUR = 3600


def document(**spec: Any) -> dict[str, Any]:
    """One round, long enough for the larger sites to keep checkpoints."""
    train = {"local_epochs": 400, "batch_size": 8, "learning_rate": 0.005, "seed": 5}
    return hospital(num_rounds=1, train=train, **spec)


def has_checkpoint(site: Site, identity: str) -> bool:
    """Of a training of this federation that is under way."""
    works = site.training_works(identity)
    return any(any(site.home.glob(f"work/{work}/checkpoint/epoch-*.pt")) for work in works)


def agent_of(site: Site) -> psutil.Process:
    return psutil.Process(json.loads((site.home / "status.json").read_text())["pid"])


def test_worker_agent_and_nursery_killed_in_training_go_on_to_the_same_bytes(field: Field) -> None:
    undisturbed = field.completed(field.submit(document()), seconds=170)
    identity = field.submit(document())
    first, second, _, last = field.sites
    with ExitStack() as held:
        under_way = {first, second, last}

        def all_held() -> bool:
            """Each where it has a checkpoint: none may end while another one is waited for."""
            for site in [one for one in under_way if has_checkpoint(one, identity)]:
                held.enter_context(site.held())
                under_way.remove(site)
            return not under_way

        until(all_held, "a checkpoint at each of the three sites")
        for worker in first.workers():
            worker.kill()
        agent_of(second).kill()
        (nursery,) = last.nurseries()
        nursery.kill()
    federation = field.completed(identity, seconds=170)

    assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
    assert [one["attempt"] for one in federation["rounds"]] == [1]
    assert [runs(site, identity) for site in field.sites] == [1] * 4, "no work is trained twice"
    assert [resumed(site, identity) for site in (first, second, last)] == [(1, 0)] * 3


def runs(site: Site, identity: str) -> int:
    """Finished runs of the round's training."""
    ((count,),) = site.journal(
        "SELECT count(*) FROM runs r JOIN finished f USING (work)"
        f" WHERE f.federation_id = '{identity}' AND f.exchange = 'train'"
        " AND r.finished_at IS NOT NULL"
    )
    return int(count)


def resumed(site: Site, identity: str) -> tuple[int, int]:
    """How often the federation's training went on from a checkpoint, and how often it began anew;
    each went on with epochs done."""
    ((resumed, restarted, epochs),) = site.journal(
        "SELECT sum(resumed), sum(restarted), min(resumed_from) FROM runs r"
        f" JOIN finished f USING (work) WHERE f.federation_id = '{identity}'"
        " AND f.exchange = 'train'"
    )
    assert epochs > 0
    return resumed, restarted


@contextmanager
def clock_of(site: Site, file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start the site again with a clock that is as wrong as `file` says."""
    site.stop()
    monkeypatch.setenv(OFFSET_FILE_VARIABLE, str(file))
    assert site.start().wait(60) == 0
    monkeypatch.delenv(OFFSET_FILE_VARIABLE)
    try:
        yield
    finally:
        site.stop()
        assert site.start().wait(60) == 0


async def test_wrong_clock_lost_data_and_an_hour_of_sleep_end_by_themselves(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    early.write_text(str(-HOUR))
    late.write_text(str(HOUR))
    sleeper, other, careless, *_ = field.sites
    with clock_of(sleeper, late, monkeypatch), clock_of(other, early, monkeypatch):
        away = careless.folder.rename(careless.folder.with_name("unmounted"))
        try:
            identity = field.submit(document(lease={"ttl_seconds": 15}))
            await event(field, identity, "fl.client.declined", code="dataset-gone")
        finally:
            away.rename(careless.folder)
        until(
            partial(has_checkpoint, sleeper, identity),
            "a checkpoint at the site that will sleep",
            90,
        )
        await sleep_until_dropped(field, identity, sleeper)
        late.write_text(str(-HOUR))
        field.completed(identity, seconds=170)
        await event(field, identity, "fl.client.joined", epoch=2)
        status = json.loads((sleeper.home / "status.json").read_text())
        assert status["clock_wrong_by"] == pytest.approx(-HOUR, abs=60)
    assert [runs(site, identity) for site in field.sites] == [1] * 4, "no work is trained twice"


async def sleep_until_dropped(field: Field, identity: str, site: Site) -> None:
    """The machine sleeps: the agent and all that it started stand still."""
    asleep = [agent_of(site), *site.workers()]
    for process in asleep:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        await event(field, identity, "fl.client.dropped")
    finally:
        for process in asleep:
            os.kill(process.pid, signal.SIGCONT)


async def event(field: Field, identity: str, kind: str, **data: Any) -> None:
    """Wait for a fact of the lease service."""
    for _ in range(600):
        for one in await field.history("lease", identity):
            if one["type"] == kind and data.items() <= one["data"].items():
                return
        await asyncio.sleep(0.1)
    raise AssertionError(f"no {kind} with {data} in a minute")
