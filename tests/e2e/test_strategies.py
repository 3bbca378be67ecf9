"""Every strategy by name in a real federation of four sites, folded again to the same bytes.

What they learn: `python -m scripts.bench.strategies`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flowerbed.contracts.strategies import PARAMETERS
from tests.e2e.documents import hospital
from tests.e2e.test_own_apps import declines, policy, run
from tests.e2e.test_synthetic import fetched
from tests.support.field import Field, until

ADAM = {"eta": 0.03}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedadam": ADAM,
    "fedtrimmedavg": {"beta": 0.25},
    "multikrum": {"num_nodes_to_select": 1},
    "bulyan": {},
    "fedavg": {},
    "fedprox": {"proximal_mu": 0.1},
    "fedavgm": {"server_momentum": 0.5},
    "fedadagrad": {},
    "fedyogi": {},
    "fedmedian": {},
    "krum": {},
    "qfedavg": {"q": 1},
    "scaffold": {},
    "custom": ADAM,
}
"""All at `PARAMETERS` and one of somebody's own; XGBoost's have an app of their own below."""
XGBOOST = ("fedxgbbagging", "fedxgbcyclic")
AT_ONCE = 4
ROUNDS = 2


def document(name: str) -> dict[str, Any]:
    strategy: dict[str, Any] = {"name": name, "params": STRATEGIES[name]}
    if name == "custom":
        strategy["custom"] = "flwr.serverapp.strategy:FedAdam"
    if name in ("qfedavg", "scaffold"):  # the synthetic app has no loss and no control variates
        return hospital(num_rounds=ROUNDS, strategy=strategy)
    return hospital(
        app="builtin:synthetic",
        model_ref={"uri": "builtin:synthetic"},
        num_rounds=ROUNDS,
        strategy=strategy,
        train={"seed": 5, "elements": 3001, "tensors": 3, "train_seconds": 0.3},
        dataset_spec={},
    )


@pytest.fixture(scope="module")
def runs(field: Field) -> dict[str, dict[str, Any]]:
    """Some at once, for most of the time each waits."""
    names, found = list(STRATEGIES), dict[str, dict[str, Any]]()
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        identities = {name: field.submit(document(name)) for name in some}
        found |= {name: field.completed(identity, 180) for name, identity in identities.items()}
    return found


async def last_round(field: Field, run: dict[str, Any], to: Path) -> tuple[dict[int, Any], Any]:
    """The accepted updates of the last training by place, and how it was closed."""
    history = [
        {**one["data"], "type": one["type"]}
        for one in await field.history("aggregator", run["federation_id"])
    ]
    last = [one for one in history if (one["round_number"], one["exchange"]) == (ROUNDS, "train")]
    updates = {
        one["place"]: fetched(field, one["artifact"]["uri"], to / "update")
        for one in last
        if one["type"] == "fl.update.accepted"
    }
    (closed,) = [one for one in last if one["type"] == "fl.aggregate.completed"]
    return updates, closed


def all_the_same(field: Field, run: dict[str, Any], rounds: int) -> bool:
    paths = [f"/artifacts/{run['federation_id']}/{n}/verify" for n in range(1, rounds + 1)]
    return all(field.api.post(path, patience=60)["identical"] is True for path in paths)


def test_every_strategy_is_here() -> None:
    assert {*STRATEGIES, *XGBOOST} == {*PARAMETERS, "custom"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_round_folded_again_gives_the_same_bytes(
    field: Field, runs: dict[str, dict[str, Any]], name: str
) -> None:
    assert all_the_same(field, runs[name], ROUNDS)


@pytest.mark.parametrize("name", ["fedtrimmedavg", "multikrum", "bulyan"])
async def test_the_checkpoint_is_what_the_rule_makes_of_the_updates_in_s3(
    field: Field, runs: dict[str, dict[str, Any]], name: str, tmp_path: Path
) -> None:
    updates, closed = await last_round(field, runs[name], tmp_path)
    final = fetched(field, runs[name]["final"]["uri"], tmp_path / "final")
    assert closed["checkpoint"]["sha256"] == runs[name]["final"]["sha256"]
    assert len(closed["selected"] or ()) == {"fedtrimmedavg": 0, "multikrum": 1, "bulyan": 4}[name]
    for key, array in final.items():
        values = np.stack([updates[place][key] for place in sorted(updates)]).astype(np.float64)
        match name:
            case "fedtrimmedavg":  # of four values without the extremes, as the median has it
                wanted = np.median(values, axis=0)
            case "multikrum":
                wanted = values[closed["selected"][0]]
            case _:  # against nobody
                wanted = values.mean(axis=0)
        np.testing.assert_allclose(array, wanted, rtol=1e-6, atol=1e-9)


async def test_scaffolds_control_variate_is_the_sum_of_what_the_sites_have_changed(
    field: Field, runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """c = c + 1/N sum(dc_i), from 0 on; the sites' own are of their own rows, and differ."""
    run = runs["scaffold"]
    history = [one["data"] for one in await field.history("aggregator", run["federation_id"])]
    accepted = [one for one in history if "place" in one and one["exchange"] == "train"]
    updates = [fetched(field, one["artifact"]["uri"], tmp_path / "update") for one in accepted]
    final = fetched(field, run["final"]["uri"], tmp_path / "final")
    controls = [key for key in final if key.startswith("scaffold/")]
    assert len(accepted) == ROUNDS * len(field.sites) and len(final) == 2 * len(controls)
    for key in controls:
        changes = np.stack([one[key] for one in updates]).astype(np.float64)
        np.testing.assert_allclose(final[key], changes.sum(axis=0) / len(field.sites), atol=1e-5)
        assert changes.std(axis=0).max() > 1e-3


def test_flowers_own_fedadam_driven_by_our_rounds_gives_what_ours_gives(
    field: Field, runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    ours, theirs = (
        fetched(field, runs[name]["final"]["uri"], tmp_path / name)
        for name in ("fedadam", "custom")
    )
    for key, array in ours.items():
        np.testing.assert_allclose(array, theirs[key], atol=1e-5)


async def test_the_aggregator_killed_mid_federation_changes_no_byte_of_fedadam(
    field: Field, runs: dict[str, dict[str, Any]]
) -> None:
    held = field.submitted_and_held(document("fedadam"), ROUNDS)
    with held as identity:  # its moments are those of the round before
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is started again", 30)
    run = field.completed(identity)
    assert run["final"]["sha256"] == runs["fedadam"]["final"]["sha256"]
    kept = []
    for federation in (identity, runs["fedadam"]["federation_id"]):
        history = [one["data"] for one in await field.history("aggregator", federation)]
        kept.append([one["moments"]["sha256"] for one in history if one.get("moments")])
    assert kept[0] == kept[1] and len(kept[0]) == ROUNDS


# --- weighting by entropy -----------------------------------------------------------------------


async def test_sites_weigh_by_their_labels_entropy_and_one_may_keep_it_to_itself(
    field: Field, tmp_path: Path
) -> None:
    *willing, silent = field.sites
    policy(silent, "set", "label_entropy=false")
    weighting = {"weighting": {"entropy": True}}
    identity = field.submit(hospital(num_rounds=ROUNDS, min_clients=3, strategy=weighting))
    found = field.completed(identity, 180)
    (declined,) = declines(field, identity)
    assert (declined["client_id"], declined["code"]) == (silent.client_id, "policy-disclosure")
    policy(silent, "set", "label_entropy=true")
    history = [one["data"] for one in await field.history("aggregator", identity)]
    last = [one for one in history if (one["round_number"], one["exchange"]) == (ROUNDS, "train")]
    accepted = [one for one in last if "place" in one]
    assert len(accepted) == len(willing)
    final = fetched(field, found["final"]["uri"], tmp_path / "final")
    told = [one["n_examples"] * one["metrics"]["label-entropy"] for one in accepted]
    assert min(told) >= 0 < max(told)
    updates = [fetched(field, one["artifact"]["uri"], tmp_path / "update") for one in accepted]
    for key, array in final.items():
        wanted = np.average([one[key] for one in updates], axis=0, weights=told)
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)
    assert all_the_same(field, found, ROUNDS)


# --- XGBoost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", XGBOOST)
def test_trees_of_four_hospitals_learn(field: Field, name: str, tmp_path: Path) -> None:
    written = yaml.safe_load(Path("examples/xgboost.yaml").read_text())
    method, rounds = name.removeprefix("fedxgb"), 8
    written["metadata"]["tenant"] = "acme"
    written["spec"] |= {
        "app": str(Path("examples/xgboost").absolute()),
        "strategy": {"name": name},
        "num_rounds": rounds,
        "min_clients": 4,
        "train": {"local_epochs": 1, "train_method": method, "seed": 7},
    }
    path = tmp_path / "xgboost.yaml"
    path.write_text(yaml.safe_dump(written))
    app = run(field, "app", "push", written["spec"]["app"], "--tenant", "acme").stdout.strip()
    for site in field.sites:
        policy(site, "allow", app)
    identity = run(field, "federation", "submit", str(path)).stdout.strip().splitlines()[0]
    found = field.completed(identity, 180)
    trees = fetched(field, found["final"]["uri"], tmp_path / "final")["0"].tobytes()
    model = json.loads(trees)["learner"]["gradient_booster"]["model"]
    assert len(model["trees"]) == rounds * (4 if method == "bagging" else 1)
    assert found["metrics"]["eval_acc"] > 0.7
    assert all_the_same(field, found, rounds)
