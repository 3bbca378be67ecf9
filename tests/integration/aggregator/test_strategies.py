"""Strategies with a memory, and strategies that compare, on real servers; and killed in between."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy.strategy_utils import aggregate_bagging
from safetensors.numpy import load, save

from flowerbed.aggregator.aggregation import Aggregation, Made
from flowerbed.contracts.values import ArtifactRef
from tests.integration.aggregator.conftest import Garden, model
from tests.integration.aggregator.test_trouble import bridge_process, verify
from tests.support import flower
from tests.support.models import Model
from tests.support.trees import trained as trees

FEDADAM: dict[str, Any] = {"name": "fedadam", "params": {"eta": 0.02, "tau": 0.01}}
WEIGHTS = (5, 7, 11)


def read(garden: Garden, ref: dict[str, Any]) -> bytes:
    path = garden.folder / "read"
    garden.blobs.download(ref["uri"], path, sha256=ref["sha256"])
    return path.read_bytes()


async def trained(garden: Garden, number: int, base: dict[str, Any] | None, **more: Any) -> Any:
    """How a round of three clients ended; each round they have other updates."""
    if base is not None:
        more["base"] = ArtifactRef.model_validate(base)
    stream = await garden.start_round(("a", "b", "c"), number=number, **more)
    attempt = more.get("attempt", 1)
    for place in (2, 0, 1):
        await garden.submit(
            "abc"[place],
            garden.put_model(10 * number + place),
            number=number,
            attempt=attempt,
            n_examples=WEIGHTS[place],
        )
    return await garden.outcome(stream)


def updates(number: int) -> list[Model]:
    return [model(10 * number + place) for place in range(3)]


async def test_a_server_optimizer_goes_on_from_the_moments_of_the_round_before(
    garden: Garden,
) -> None:
    await garden.create(strategy=FEDADAM)
    theirs, base, ended = flower.STRATEGIES["fedadam"](**FEDADAM["params"]), model(0), None
    for number in (1, 2, 3):
        if number == 3:  # by a bridge that did not see the rounds before
            await garden.stop()
            await garden.start()
        before = None if ended is None else ended["checkpoint"]
        ended = await trained(garden, number, before)
        wanted = flower.aggregate(theirs, base, updates(number), WEIGHTS, number)
        base = load(read(garden, ended["checkpoint"]))
        for name, array in base.items():
            np.testing.assert_allclose(array, wanted[name], atol=1e-5)
        state = json.loads(read(garden, ended["state"]))
        assert (state["moments"], state["params"]["beta_2"]) == (ended["moments"]["sha256"], 0.99)
        assert {name[:2] for name in load(read(garden, ended["moments"]))} == {"m.", "v."}
        answer = (await verify(garden, number)).json()
        assert (answer["identical"], answer["actual"]) == (True, ended["checkpoint"]["sha256"])


async def test_killed_in_mid_round_an_optimizer_gives_the_same_bytes(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create(strategy=FEDADAM)
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
    for kind in ("checkpoint", "moments"):
        assert ended[kind] == undisturbed[kind], kind


async def test_a_base_that_no_round_made_has_no_moments_and_fails_the_exchange(
    garden: Garden,
) -> None:
    await garden.create(strategy=FEDADAM)
    ended = await trained(garden, 2, None)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "state-unknown")


async def test_verifying_says_when_the_moments_are_others(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    await garden.create(strategy=FEDADAM)
    ended = await trained(garden, 1, None)
    make = Aggregation.make

    def other(self: Aggregation) -> Made:
        made = make(self)
        return replace(made, state=replace(made.state, moments="f" * 64))

    monkeypatch.setattr(Aggregation, "make", other)
    answer = (await verify(garden)).json()
    assert (answer["identical"], answer["expected"]) == (False, ended["moments"]["sha256"])


async def test_qfedavg_weighs_by_the_losses_that_clients_report(garden: Garden) -> None:
    await garden.create(strategy={"name": "qfedavg", "params": {"q": 1}})
    ends = []
    for attempt, told in enumerate(({}, {"train-loss": 0.5}, {"train-loss": 50.0}), start=1):
        stream = await garden.start_round(("a", "b"), attempt=attempt)
        first, second = garden.put_model(1), garden.put_model(2)
        await garden.submit("a", first, attempt=attempt, metrics={"train-loss": 0.5})
        await garden.submit("b", second, attempt=attempt, metrics=told)
        ends.append(await garden.outcome(stream))
    assert (ends[0]["type"], ends[0]["code"]) == ("aggregate.failed", "loss-unknown")
    alike, worse = (load(read(garden, end["checkpoint"])) for end in ends[1:])
    steps = [
        {name: float(np.sum((after[name] - model(0)[name]) * (model(2)[name] - model(0)[name])))
         / float(np.linalg.norm(after[name] - model(0)[name])) for name in after}
        for after in (alike, worse)
    ]  # fmt: skip
    assert all(steps[1][name] > steps[0][name] for name in steps[0])  # more towards b's
    assert (await verify(garden)).json()["identical"]


MULTIKRUM = {"name": "multikrum", "params": {"num_malicious_nodes": 1, "num_nodes_to_select": 3}}


async def test_multikrum_leaves_out_who_is_far_away_also_after_a_kill(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create(min_clients=5, strategy=MULTIKRUM)
    base = load(read(garden, garden.put_model(0).model_dump()))
    cohort = tuple("abcde")

    def update(place: int) -> ArtifactRef:
        far = 100.0 if place == 1 else 0.01
        step = {name: far * array for name, array in model(1 + place).items()}
        return garden.put(save({n: (base[n] + step[n]).astype(np.float32) for n in base}))

    ended = []
    for attempt in (1, 2):
        stream = await garden.start_round(cohort, attempt=attempt)
        for place, name in enumerate(cohort):
            if (attempt, place) == (2, 3):
                await garden.heard(stream, 3)
                await garden.stop()
                await garden.start()
            await garden.submit(name, update(place), attempt=attempt)
        ended.append(await garden.outcome(stream))
    assert ended[0]["checkpoint"] == ended[1]["checkpoint"]
    assert ended[0]["selected"] == ended[1]["selected"]
    assert len(ended[0]["selected"]) == 3 and 1 not in ended[0]["selected"]
    assert len(ended[0]["updates"]) == 5 and ended[0]["moments"] is None
    assert (await verify(garden)).json()["identical"]


async def test_an_exchange_with_too_few_updates_for_the_rule_fails(garden: Garden) -> None:
    await garden.create(min_clients=5, strategy=MULTIKRUM)
    stream = await garden.start_round(("a", "b", "c"), n_required=3)
    for place, name in enumerate("abc"):
        await garden.submit(name, garden.put_model(place))
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "too-few-updates")
    assert ended["reason"] == "multikrum needs 5 updates, 3 are accepted"


def packed(content: bytes) -> bytes:
    return save({"0": np.frombuffer(content, np.uint8)})


async def test_trees_of_several_clients_are_put_together_and_anything_else_is_refused(
    garden: Garden,
) -> None:
    garden.base = garden.put(packed(b""))
    model_ref = {"uri": garden.base.uri, "sha256": garden.base.sha256}
    policy = {"quorum": 0.5}
    await garden.create(
        strategy={"name": "fedxgbbagging"}, model_ref=model_ref, round_policy=policy
    )
    await garden.outcome(garden.stream(0, 1, "initialize"))
    stream = await garden.start_round(("a", "b", "c"), n_required=2)
    await garden.submit("b", garden.put(packed(b"no trees")))
    for name, seed in (("c", 3), ("a", 1)):
        await garden.submit(name, garden.put(packed(trees(b"", seed))))
    ended = await garden.outcome(stream)
    assert ended["type"] == "aggregate.completed", ended
    merged = aggregate_bagging(trees(b"", 1), trees(b"", 3))
    assert load(read(garden, ended["checkpoint"]))["0"].tobytes() == merged
    (refused,) = [one for kind, one in await garden.events(stream) if kind == "update.rejected"]
    assert (refused["client_id"], refused["code"]) == ("b", "not-trees")
    assert (await verify(garden)).json()["identical"]


async def test_a_base_that_is_no_tree_fails_a_federation_of_trees(garden: Garden) -> None:
    await garden.create(strategy={"name": "fedxgbcyclic"})
    ended = await garden.outcome(garden.stream(0, 1, "initialize"))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "not-trees")


def controlled(seed: int) -> bytes:
    """What a client of SCAFFOLD sends: a model, and by how much its control variate has changed."""
    changes = {f"scaffold/{name}": 0.1 * array for name, array in model(100 + seed).items()}
    return save({**model(seed), **changes})


async def test_scaffolds_control_variate_goes_along_and_survives_a_kill(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create(strategy={"name": "scaffold"})
    first = await garden.outcome(garden.stream(0, 1, "initialize"))
    base = load(read(garden, first["checkpoint"]))
    assert not any(base[f"scaffold/{name}"].any() for name in model(0))
    ended, c = first, {name: np.zeros_like(array) for name, array in model(0).items()}
    for number in (1, 2):
        ref = ArtifactRef.model_validate(ended["checkpoint"])
        stream = await garden.start_round(("a", "b"), number=number, base=ref)
        for place, name in enumerate("ab"):
            if (number, place) == (2, 1):
                await garden.heard(stream, 1)
                await garden.stop()
                await garden.start()
            update = garden.put(controlled(10 * number + place))
            await garden.submit(name, update, number=number, n_examples=1 + 5 * place)
        ended = await garden.outcome(stream)
        assert ended["type"] == "aggregate.completed", ended
        found = load(read(garden, ended["checkpoint"]))
        for name in c:
            c[name] += np.mean([0.1 * model(100 + 10 * number + k)[name] for k in (0, 1)], axis=0)
            wanted = np.mean([model(10 * number + k)[name] for k in (0, 1)], axis=0)
            np.testing.assert_allclose(found[name], wanted, atol=1e-5)
            np.testing.assert_allclose(found[f"scaffold/{name}"], c[name], atol=1e-5)
        assert (await verify(garden, number)).json()["identical"]


async def test_an_app_that_knows_no_control_variates_is_refused(garden: Garden) -> None:
    await garden.create(strategy={"name": "scaffold"})
    first = await garden.outcome(garden.stream(0, 1, "initialize"))
    ref = ArtifactRef.model_validate(first["checkpoint"])
    stream = await garden.start_round(("a",), base=ref)
    await garden.submit("a", garden.put_model(1))
    (_, refused), *_ = await garden.heard(stream, 1)
    assert refused["code"] == "wrong-names"
    assert refused["detail"] == "tensor scaffold/layer.bias is missing"
