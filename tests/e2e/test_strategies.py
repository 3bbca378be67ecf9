"""A strategy of each family in a real federation of four sites, folded again to the same bytes.

All of them, with what they learn: `python -m scripts.bench.strategies`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.documents import hospital
from tests.e2e.test_synthetic import fetched
from tests.support.field import Field, until

STRATEGIES: dict[str, dict[str, Any]] = {
    "fedadam": {},
    "fedtrimmedavg": {"beta": 0.25},
    "multikrum": {"num_nodes_to_select": 1},
    "bulyan": {},
}
ROUNDS = 2


def document(name: str) -> dict[str, Any]:
    return hospital(
        app="builtin:synthetic",
        model_ref={"uri": "builtin:synthetic"},
        num_rounds=ROUNDS,
        strategy={"name": name, "params": STRATEGIES[name]},
        train={"seed": 5, "elements": 3001, "tensors": 3, "train_seconds": 0.3},
        dataset_spec={},
    )


@pytest.fixture(scope="module")
def runs(field: Field) -> dict[str, dict[str, Any]]:
    """All at once, for most of the time each waits."""
    identities = {name: field.submit(document(name)) for name in STRATEGIES}
    return {name: field.completed(identity) for name, identity in identities.items()}


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


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_round_folded_again_gives_the_same_bytes(
    field: Field, runs: dict[str, dict[str, Any]], name: str
) -> None:
    for number in range(1, ROUNDS + 1):
        path = f"/artifacts/{runs[name]['federation_id']}/{number}/verify"
        assert field.api.post(path, patience=60)["identical"] is True


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


async def test_the_aggregator_killed_mid_federation_changes_no_byte_of_fedadam(
    field: Field, runs: dict[str, dict[str, Any]]
) -> None:
    identity = field.submit(document("fedadam"))
    with field.held_in_round(identity, ROUNDS):  # its moments are those of the round before
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is started again", 30)
    run = field.completed(identity)
    assert run["final"]["sha256"] == runs["fedadam"]["final"]["sha256"]
    kept = []
    for federation in (identity, runs["fedadam"]["federation_id"]):
        history = [one["data"] for one in await field.history("aggregator", federation)]
        kept.append([one["moments"]["sha256"] for one in history if one.get("moments")])
    assert kept[0] == kept[1] and len(kept[0]) == ROUNDS
