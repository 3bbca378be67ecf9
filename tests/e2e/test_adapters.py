"""Adapters of low rank are trained by real sites: the adapters alone travel, and are kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from tests.e2e.test_own_apps import policy, run
from tests.e2e.test_synthetic import fetched
from tests.support.field import Field

EXAMPLE = Path("examples/lora.yaml")
ADAPTER = {f"{layer}.lora_{part}" for layer in ("fc1", "fc2") for part in "ab"} | {
    "head.weight", "head.bias",
}  # fmt: skip
FORMS = {"adapter": "full", "adapter+top_k": "top_k"}


def spec(tmp_path: Path, form: str, **update: Any) -> Path:
    written = yaml.safe_load(EXAMPLE.read_text())
    written["metadata"]["tenant"] = "acme"
    written["spec"] |= {"app": str(EXAMPLE.with_suffix("").absolute()), "min_clients": 4}
    written["spec"]["update"] |= {"form": form, **update}
    path = tmp_path / f"{form}.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


@pytest.fixture(scope="module")
def runs(
    field: Field, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("specs")
    for site in field.sites:
        policy(site, "allow", "--any-app")
    identities = {
        label: run(field, "federation", "submit", str(spec(folder, form))).stdout.split()[0]
        for label, form in FORMS.items()
    }
    yield {label: field.completed(identity, 240) for label, identity in identities.items()}
    for site in field.sites:
        (site.home / "policy.json").unlink(missing_ok=True)


@pytest.mark.parametrize("label", FORMS)
async def test_only_adapters_travel_and_each_rounds_checkpoint_is_as_small(
    field: Field, runs: dict[str, dict[str, Any]], label: str, tmp_path: Path
) -> None:
    identity = runs[label]["federation_id"]
    history = [one["data"] for one in await field.history("aggregator", identity)]
    updates = [one for one in history if one.get("norm") is not None]
    assert len(updates) == 12 and {one["form"] for one in updates} == {label}
    assert all(10 * one["artifact"]["size"] < one["full_size"] for one in updates)
    whole = next(one for one in history if one.get("exchange") == "initialize")["checkpoint"]
    made = [one for one in history if one.get("checkpoint") and one["exchange"] == "train"]
    for one in made:
        assert 10 * one["checkpoint"]["size"] < whole["size"]
        assert whole["sha256"] in one["parents"], "the lineage names what has the other tensors"
    path = tmp_path / "final"
    assert fetched(field, runs[label]["final"]["uri"], path).keys() == ADAPTER
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"flowerbed.frozen": whole["sha256"]}
    started = [
        one["data"] for one in await field.history("orchestrator", identity)
        if one["type"] in ("fl.round.started", "fl.round.evaluation_started")
    ]  # fmt: skip
    frozen = [one["frozen"] for one in started]
    assert frozen == [None] + [whole] * 5, "the first training begins from all of it"


@pytest.mark.parametrize("label", FORMS)
def test_every_round_folded_again_gives_the_same_bytes(
    field: Field, runs: dict[str, dict[str, Any]], label: str
) -> None:
    for number in range(4):
        path = f"/artifacts/{runs[label]['federation_id']}/{number}/verify"
        assert field.api.post(path, patience=60)["identical"] is True


def test_the_model_has_learnt_and_is_fetched_whole(
    field: Field, runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    federation = runs["adapter"]
    assert federation["metrics"]["eval_acc"] > 0.6
    final, whole = tmp_path / "final", tmp_path / "whole"
    base = fetched(field, federation["artifacts"][0]["uri"], tmp_path / "base")
    assert federation["artifacts"][0]["kind"] == "base"
    adapter = fetched(field, federation["final"]["uri"], final)
    target = ["artifact", "download", federation["federation_id"], "--to", str(whole), "--merged"]
    where = ["-o", "json", "--state-dir", str(field.stack.state_dir)]
    told = json.loads(run(field, *target, *where).stdout)
    assert told["merged_with"] == hashlib.sha256((tmp_path / "base").read_bytes()).hexdigest()
    with safe_open(whole, framework="np") as file:
        assert set(file.keys()) == set(base) > ADAPTER
        for name in file.keys():  # noqa: SIM118
            wanted = adapter[name] if name in ADAPTER else base[name]
            np.testing.assert_array_equal(file.get_tensor(name), wanted)


def test_trainable_tensors_that_the_model_has_not_fail_the_federation(
    field: Field, runs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    path = spec(tmp_path, "full", trainable=["*.adapter_*"])
    identity = run(field, "federation", "submit", str(path)).stdout.split()[0]
    ended = field.ended(identity, 120)
    assert (ended["status"], ended["code"]) == ("failed", "nothing-trainable")
    assert r"no tensor of the base is called *.adapter_*" in ended["reason"]
