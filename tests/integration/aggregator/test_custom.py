"""A strategy of somebody's own, driven by our rounds in a process of its own; and killed."""

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from flowerbed.contracts.values import ArtifactRef
from tests.integration.aggregator.conftest import Garden
from tests.integration.aggregator.test_initialize import push
from tests.integration.aggregator.test_strategies import WEIGHTS, read, trained, updates
from tests.integration.aggregator.test_trouble import bridge_process, verify
from tests.support import flower
from tests.support.apps import bundle
from tests.support.models import Model
from tests.support.strategies import STRATEGY

MAKE = {"custom": "drift.strategy:make", "params": {"pace": 0.25}}


async def create(garden: Garden, **strategy: Any) -> None:
    raw = bundle({"drift/strategy.py": STRATEGY})
    await garden.create(strategy=strategy, **push(garden, raw))


def mean(number: int) -> Model:
    total = sum(WEIGHTS)
    pairs = list(zip(WEIGHTS, updates(number), strict=True))
    return {name: np.sum([w / total * one[name] for w, one in pairs], 0) for name in pairs[0][1]}


async def test_it_aggregates_and_what_it_remembers_goes_from_round_to_round(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "FLOWERBED_TOKEN", "secret")
    await create(garden, **MAKE)
    memory: Model = {}
    before = None
    for number in (1, 2, 3):
        if number == 3:  # by a bridge that did not see the rounds before
            await garden.stop()
            await garden.start()
        ended = await trained(garden, number, before)
        assert ended["type"] == "aggregate.completed", ended
        before, random_ = ended["checkpoint"], random.Random(7)
        for name, array in sorted(mean(number).items()):
            memory[name] = 0.25 * memory.get(name, 0) + array
            chance = np.float32(random_.random())
            found = load(read(garden, before))[name]
            np.testing.assert_allclose(found, memory[name] + chance, atol=1e-5)
        assert ended["metrics"] == {"n-seen": number}
        answer = (await verify(garden, number)).json()
        assert (answer["identical"], answer["actual"]) == (True, before["sha256"])
    assert [one["place"] for one in ended["updates"]] == [0, 1, 2]


async def test_killed_in_mid_round_it_gives_the_same_bytes(garden: Garden, tmp_path: Path) -> None:
    await create(garden, **MAKE)
    first = await trained(garden, 1, None)
    undisturbed = await trained(garden, 2, first["checkpoint"])
    await garden.stop()
    base = ArtifactRef.model_validate(first["checkpoint"])
    stream = await garden.start_round(("a", "b", "c"), number=2, attempt=2, base=base)
    more: dict[str, Any] = {"number": 2, "attempt": 2}
    with bridge_process(garden, tmp_path) as process:
        for count, place in enumerate((0, 2), start=1):
            update = garden.put_model(20 + place)
            await garden.submit("abc"[place], update, n_examples=WEIGHTS[place], **more)
            await garden.heard(stream, count)
        process.kill()
    with bridge_process(garden, tmp_path):
        await garden.submit("b", garden.put_model(21), n_examples=WEIGHTS[1], **more)
        ended = await garden.outcome(stream)
    for kind in ("checkpoint", "moments", "metrics"):
        assert ended[kind] == undisturbed[kind], kind


async def test_it_sums_up_an_evaluation_with_what_it_kept_of_the_training(garden: Garden) -> None:
    await create(garden, **MAKE)
    base = ArtifactRef.model_validate((await trained(garden, 1, None))["checkpoint"])
    stream = await garden.start_round(("a", "b"), exchange="evaluate", base=base)
    for name, loss in (("a", 0.25), ("b", 0.75)):
        await garden.submit(name, None, exchange="evaluate", metrics={"loss": loss})
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["metrics"]) == ("aggregate.completed", {"worst": 0.75})


async def test_one_that_cannot_be_driven_fails_the_exchange_and_says_why(garden: Garden) -> None:
    await create(garden, custom="drift.strategy:Loud")
    ended = await trained(garden, 1, None)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-failed")
    assert "the strategy would tell its clients {'learning-rate': 0.05}" in ended["reason"]


async def test_other_arrays_than_the_bases_fail_the_exchange(garden: Garden) -> None:
    await create(garden, custom="drift.strategy:Growing")
    ended = await trained(garden, 1, None)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "strategy-arrays")
    assert ended["reason"] == "the strategy gave 0 (3,), the base has None"


async def test_one_that_keeps_nothing_and_gives_nothing_leaves_the_base_as_it_is(
    garden: Garden,
) -> None:
    await create(garden, custom="drift.strategy:Silent")
    ended = await trained(garden, 1, None)
    assert garden.base is not None
    assert ended["checkpoint"]["sha256"] == garden.base.sha256
    assert (ended["moments"], ended["metrics"]) == (None, {})


async def test_an_operator_may_have_no_pushed_strategy_run_here(garden: Garden) -> None:
    assert garden.exchanges is not None
    for part in garden.exchanges.parts:
        part.bridge = replace(part.bridge, runs_pushed_apps=False)
    await create(garden, **MAKE)
    ended = await trained(garden, 1, None)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "app-not-run")


async def test_flowers_own_need_no_app_of_ones_own(garden: Garden) -> None:
    params: dict[str, Any] = {"eta": 0.02, "tau": 0.01}
    await garden.create(strategy={"custom": "flwr.serverapp.strategy:FedAdam", "params": params})
    theirs, base, before = flower.STRATEGIES["fedadam"](**params), None, None
    for number in (1, 2):
        base = base or load(read(garden, garden.put_model(0).model_dump()))
        ended = await trained(garden, number, before)
        assert ended["type"] == "aggregate.completed", ended
        wanted = flower.aggregate(theirs, base, updates(number), WEIGHTS, number)
        before = ended["checkpoint"]
        base = load(read(garden, before))
        for name, array in base.items():
            np.testing.assert_allclose(array, wanted[name], atol=1e-6)
