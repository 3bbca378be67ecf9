"""A FederationSpec is read in both spellings and written in one, without losing anything."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.spec import FederationSpec, builtin_apps
from flowerbed.events.documents import DocumentUnreadable, read_document
from tests.support.federations import document, spec_of

EXAMPLES = sorted(Path("examples").glob("*.yaml"))

MALFORMED: dict[str, str] = {
    "not YAML": "apiVersion: [flowerbed/v1",
    "an alias": "apiVersion: &v flowerbed/v1\nmetadata: *v",
    "two documents": "apiVersion: flowerbed/v1\n---\napiVersion: flowerbed/v1",
    "a key twice": "apiVersion: flowerbed/v1\napiVersion: flowerbed/v1",
    "a list": "- apiVersion: flowerbed/v1",
    "empty": "",
    "no spec": "apiVersion: flowerbed/v1\nmetadata: {name: x}",
    "NaN in JSON": '{"apiVersion": "flowerbed/v1", "spec": {"client_fraction": NaN}}',
    "another version": "apiVersion: flowerbed/v9\nmetadata: {name: x}\nspec: {}",
    "words for numbers": "apiVersion: flowerbed/v1\nmetadata: {name: x}\n"
    "spec: {app: builtin:hospital, model_ref: {uri: builtin:hospital}, num_rounds: three}",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_document_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises((DocumentUnreadable, SpecRefused)) as refused:
        parse_spec(read_document(text.encode()))
    assert str(refused.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_the_examples_are_accepted(path: Path) -> None:
    written: Any = read_document(path.read_bytes())
    if (own := path.parent / written["spec"]["app"]).is_dir():
        assert own.name == path.stem
        written["spec"]["app"] = f"fab:{'0' * 64}"  # as the command line names it
        model = parse_spec(written).spec.model_ref
        assert model is not None and model.uri.startswith("app:")
        return
    assert parse_spec(written).spec.app.startswith("builtin:")


def in_camel_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {to_camel(key): in_camel_case(one) for key, one in value.items()}
    return value


def everything() -> dict[str, Any]:
    written = document(
        model_ref={"uri": "s3://models/base.safetensors", "sha256": "a" * 64},
        strategy={
            "name": "fedprox",
            "params": {"proximal_mu": 0.5},
            "weighting": {"examples": False, "recency": 0.5},
        },
        client_fraction=0.5,
        round_policy={"quorum": 0.5, "over_select": 1.5, "join_deadline_seconds": 10.0},
        train={"local_epochs": 3, "weight_decay": 0.1, "use_bias": True, "note": "a b"},
        client_selector={"tenant": "acme", "tags": ["gpu", "zone:1"]},
        dataset_spec={"uris": ["local:hospital"], "shards": ["s-1"], "hashes": ["b" * 64]},
        lease={"ttl_seconds": 60, "max_epochs": 5, "max_tokens": 9},
        artifacts={"bucket": "models", "prefix": "a/b"},
        telemetry={"otlp_endpoint": "https://c.example/otlp", "otlp_protocol": "grpc"},
    )
    written["metadata"]["labels"] = {"team": "x"}
    return written


def test_both_spellings_are_the_same_spec() -> None:
    assert parse_spec(in_camel_case(everything())) == parse_spec(everything())


def test_yaml_and_json_are_the_same_spec() -> None:
    as_json = json.dumps(document(client_fraction=1e-3)).encode()
    as_yaml = b"""
apiVersion: flowerbed/v1
metadata: {name: demo, tenant: acme}
spec:
  app: builtin:hospital
  model_ref: {uri: "builtin:hospital"}
  num_rounds: 2
  min_clients: 2
  client_fraction: 1e-3
  train: {seed: 7}
  round_policy: {deadline_seconds: 60.0, max_attempts: 2}
"""
    assert parse_spec(read_document(as_yaml)) == parse_spec(read_document(as_json))


def test_whole_numbers_are_seconds_and_fractions_too() -> None:
    spec = spec_of(client_fraction=1, round_policy={"deadline_seconds": 30, "quorum": 1})
    assert spec.spec.round_policy.deadline_seconds == 30.0


@pytest.mark.parametrize("written", [document(), everything()])
def test_the_document_of_a_spec_is_read_back_as_the_same_spec(written: dict[str, Any]) -> None:
    spec = parse_spec(written)
    again = json.loads(json.dumps(spec.document()))
    assert parse_spec(again) == spec
    assert FederationSpec.model_validate(again) == spec
    assert parse_spec(again).document() == spec.document()


def test_the_document_writes_every_default_out() -> None:
    written = spec_of().document()
    assert written == {
        "api_version": "flowerbed/v1",
        "kind": "Federation",
        "metadata": {"name": "demo", "tenant": "acme", "labels": {}},
        "spec": {
            "app": "builtin:hospital",
            "server_app": "strategy",
            "model_ref": {"uri": "builtin:hospital", "sha256": None, "format": "safetensors"},
            "strategy": {
                "name": "fedavg", "custom": None, "params": {},
                "weighting": {"examples": True, "recency": 0.0, "entropy": False},
            },
            "num_rounds": 2,
            "client_fraction": 1.0,
            "min_clients": 2,
            "round_policy": {
                "mode": "synchronous", "close_at": None, "buffer_size": None, "quorum": 1.0,
                "over_select": 1.0, "late_updates": "refuse", "staleness_exponent": 0.5,
                "max_staleness": 10, "replace_dropped": True, "budget_seconds": None,
                "deadline_seconds": 60.0, "max_attempts": 2, "join_deadline_seconds": 3600.0,
            },
            "train": {"local_epochs": 1, "batch_size": 32, "learning_rate": 0.01, "seed": 7},
            "dp": None,
            "secure_agg": False,
            "client_selector": {"tenant": None, "tags": [], "embedding_query": None},
            "dataset_spec": {"uris": [], "shards": [], "hashes": []},
            "lease": {"ttl_seconds": 120, "max_epochs": None, "max_tokens": None},
            "artifacts": {"bucket": "flowerbed", "prefix": "checkpoints"},
            "telemetry": None,
            "runtime": "bus",
            "simulation": None,
            "update": {"form": "full", "block": None, "fraction": None, "trainable": []},
        },
    }  # fmt: skip


def test_the_apps_own_parameters_are_kept_in_snake_case() -> None:
    spec = spec_of(train={"weightDecay": 0.5, "use_bias": False, "localEpochs": 4})
    assert spec.spec.train.app_parameters == {"weight_decay": 0.5, "use_bias": False}
    assert spec.spec.train.local_epochs == 4


def test_fedprox_has_a_mu_and_fedavg_none() -> None:
    fedprox = spec_of(strategy={"name": "fedprox", "params": {"proximalMu": 1}})
    assert fedprox.spec.strategy.proximal_mu == 1.0
    assert spec_of().spec.strategy.proximal_mu is None


def test_every_builtin_app_has_a_code_hash() -> None:
    apps = builtin_apps()
    assert {"hospital", "vision", "synthetic"} <= apps.keys()
    assert all(len(digest) == 64 for digest in apps.values())


def test_a_spec_that_names_a_later_app_is_not_for_the_first_release() -> None:
    assert spec_of().release == 1
    model = {"uri": "builtin:synthetic"}
    assert spec_of(app="builtin:synthetic", model_ref=model).release == 2


def test_a_simulated_spec_expects_all_its_clients_and_is_not_for_the_first_release() -> None:
    spec = spec_of(runtime="simulation", simulation={"clients": 100}, min_clients=3)
    assert (spec.release, spec.spec.n_expected) == (2, 100)
    assert spec_of(min_clients=3).spec.n_expected == 3
    assert "simulation" not in spec_of().brief()["spec"]
    assert spec.brief()["spec"]["simulation"]["ray_address"] == "local"


def test_a_spec_that_names_a_collector_is_not_for_the_first_release() -> None:
    spec = spec_of(telemetry={"otlp_endpoint": "https://collector.example:4318"})
    assert (spec.release, spec_of(telemetry=None).release) == (2, 1)
    assert "telemetry" not in spec_of().brief()["spec"]
    assert parse_spec(json.loads(json.dumps(spec.brief()))) == spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from([*sorted(everything()["spec"]), "numRounds", "modelRef", "nonsense"])


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_whatever_is_written_is_a_spec_or_refused_in_words_that_can_be_stored(
    changes: dict[str, Any],
) -> None:
    try:
        spec = parse_spec(document(**changes))
    except SpecRefused as refused:
        for problem in refused.problems:
            assert problem.path.startswith(("spec", "metadata")) and problem.allowed
            problem.model_dump_json()
    else:
        assert parse_spec(json.loads(spec.model_dump_json())) == spec


def test_the_brief_form_is_what_the_first_release_wrote_and_means_the_same() -> None:
    first = {"quorum", "deadline_seconds", "max_attempts", "over_select", "join_deadline_seconds"}
    plain, late = spec_of(), spec_of(round_policy={"late_updates": "next_round", "close_at": 3})
    assert set(plain.brief()["spec"]["round_policy"]) == first
    assert set(late.brief()["spec"]["round_policy"]) == first | {"late_updates", "close_at"}
    for spec in (plain, late):
        assert parse_spec(json.loads(json.dumps(spec.brief()))) == spec
