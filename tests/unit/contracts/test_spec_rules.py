"""Every broken rule of a FederationSpec is reported at once: path, value, what is allowed."""

from typing import Any, get_args

import pytest

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.strategies import StrategyName
from tests.support.federations import document

NAN = float("nan")


def problems(written: object) -> dict[str, tuple[str, str]]:
    """By path: the value that was shown, and what is allowed."""
    with pytest.raises(SpecRefused) as refused:
        parse_spec(written)
    paths = [one.path for one in refused.value.problems]
    assert len(paths) == len(set(paths)), "one rule is reported twice"
    return {one.path: (one.value, one.allowed) for one in refused.value.problems}


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {**document(), "metadata": metadata}


AT_LEAST_1 = "input should be greater than or equal to 1"
AT_MOST_1 = "input should be less than or equal to 1"
INTEGER = "input should be a valid integer"
HEX = "64 lower-case hex digits"
NAMES = f"{', '.join(map(repr, get_args(StrategyName)[:-1]))} or 'custom'"
PARAMETER = "text, a finite number of at most 64 bits, or a boolean"

RULES: list[tuple[str, object, str, str]] = [
    ("num_rounds", 0, "num_rounds", AT_LEAST_1),
    ("num_rounds", -3, "num_rounds", AT_LEAST_1),
    ("num_rounds", 1_000_001, "num_rounds", "input should be less than or equal to 1000000"),
    ("num_rounds", 2.0, "num_rounds", INTEGER),
    ("num_rounds", "2", "num_rounds", INTEGER),
    ("num_rounds", True, "num_rounds", INTEGER),
    ("num_rounds", None, "num_rounds", INTEGER),
    ("min_clients", 0, "min_clients", AT_LEAST_1),
    ("client_fraction", 0, "client_fraction", "input should be greater than 0"),
    ("client_fraction", 1.01, "client_fraction", AT_MOST_1),
    ("client_fraction", True, "client_fraction", "input should be a valid number"),
    ("client_fraction", NAN, "client_fraction", "input should be a finite number"),
    ("round_policy", {"quorum": 1.5}, "round_policy.quorum", AT_MOST_1),
    ("round_policy", {"quorum": 0.0}, "round_policy.quorum", "input should be greater than 0"),
    (
        "round_policy",
        {"deadline_seconds": 0},
        "round_policy.deadline_seconds",
        "input should be greater than 0",
    ),
    ("round_policy", {"max_attempts": 0}, "round_policy.max_attempts", AT_LEAST_1),
    ("round_policy", {"over_select": 0.9}, "round_policy.over_select", AT_LEAST_1),
    (
        "round_policy",
        {"join_deadline_seconds": float("inf")},
        "round_policy.join_deadline_seconds",
        "input should be a finite number",
    ),
    ("round_policy", [], "round_policy", "a mapping"),
    ("lease", {"ttl_seconds": 14}, "lease.ttl_seconds", AT_LEAST_1.replace("1", "15")),
    ("lease", {"ttl_seconds": 60.5}, "lease.ttl_seconds", INTEGER),
    ("lease", {"max_epochs": 0}, "lease.max_epochs", AT_LEAST_1),
    ("lease", {"max_tokens": False}, "lease.max_tokens", INTEGER),
    (
        "lease",
        {"max_tokens": 2**63},
        "lease.max_tokens",
        "input should be less than 9223372036854775808",
    ),
    ("lease", None, "lease", "a mapping"),
    ("train", {"local_epochs": 0}, "train.local_epochs", AT_LEAST_1),
    ("train", {"batch_size": 0}, "train.batch_size", AT_LEAST_1),
    ("train", {"learning_rate": 0}, "train.learning_rate", "input should be greater than 0"),
    ("train", {"seed": -1}, "train.seed", "input should be greater than or equal to 0"),
    ("train", {"seed": 2**31}, "train.seed", "input should be less than 2147483648"),
    ("train", {"momentum": NAN}, "train.momentum", PARAMETER),
    ("train", {"momentum": 10**40}, "train.momentum", PARAMETER),
    ("train", {"layers": [1, 2]}, "train.layers", PARAMETER),
    ("train", {"word": "a\0b"}, "train.word", "text without NUL and lone surrogates"),
    ("train", {"word": "\ud800"}, "train.word", "text without NUL and lone surrogates"),
    (
        "train",
        {"server_round": 3},
        "train.server_round",
        "a name that is not the control plane's own",
    ),
    (
        "train",
        {"local-epochs": 5},
        "train.local-epochs",
        "a name in snake_case of at most 64 letters, digits and _",
    ),
    ("strategy", {"name": "best"}, "strategy.name", f"one of {NAMES}"),
    ("strategy", {"params": {"mu": 1}}, "strategy.params", "unknown params ['mu'] for fedavg: []"),
    (
        "strategy",
        {"name": "fedprox"},
        "strategy.params",
        "fedprox needs proximal_mu, a number greater than 0",
    ),
    (
        "strategy",
        {"name": "fedprox", "params": {"proximal_mu": -1}},
        "strategy.params",
        "fedprox needs proximal_mu, a number greater than 0",
    ),
    (
        "strategy",
        {"name": "fedprox", "params": {"proximal_mu": NAN}},
        "strategy.params.proximal_mu",
        PARAMETER,
    ),
    ("app", "hospital", "app", "builtin:NAME, or fab:SHA256 of an app that was pushed"),
    (
        "app",
        "builtin:nothing",
        "app",
        "unknown app: one of builtin:hospital, builtin:synthetic, builtin:vision,"
        " or fab:SHA256 of a pushed one",
    ),
    (
        "model_ref",
        {"uri": "builtin:vision"},
        "model_ref",
        "uri must be builtin:hospital or s3://…, not another app's architecture",
    ),
    ("model_ref", {"uri": "s3://b/k", "sha256": "A" * 64}, "model_ref.sha256", HEX),
    ("model_ref", {"uri": "s3://b/k", "sha256": "a" * 63}, "model_ref.sha256", HEX),
    ("model_ref", {"uri": "s3://b/k", "sha256": "a" * 64 + "\n"}, "model_ref.sha256", HEX),
    ("model_ref", {"uri": "s3://b/k", "format": "pt"}, "model_ref.format", "one of 'safetensors'"),
    ("dataset_spec", {"hashes": ["b" * 64, "x"]}, "dataset_spec.hashes.1", HEX),
    (
        "dataset_spec",
        {"uris": ["/srv/data"]},
        "dataset_spec.uris.0",
        "text matching ^local:[a-z0-9-]{1,60}$",
    ),
    (
        "client_selector",
        {"tags": ["a b"]},
        "client_selector.tags.0",
        "text matching ^[A-Za-z0-9_.:=-]{1,64}$",
    ),
    (
        "artifacts",
        {"bucket": "No"},
        "artifacts.bucket",
        "text matching ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    ),
    ("secure_agg", "no", "secure_agg", "input should be a valid boolean"),
    ("runtime", "cloud", "runtime", "one of 'bus', 'superlink' or 'simulation'"),
]


@pytest.mark.parametrize(("key", "value", "path", "allowed"), RULES)
def test_a_broken_rule_is_named_by_path_and_what_is_allowed(
    key: str, value: object, path: str, allowed: str
) -> None:
    found = problems(document(**{key: value}))
    assert found.keys() == {f"spec.{path}"}
    assert found[f"spec.{path}"][1] == allowed


TEN = {"clients": 10}
SIMULATED: list[tuple[dict[str, Any], str, str]] = [
    ({"runtime": "simulation"}, "simulation", "{clients: N} with runtime simulation"),
    ({"simulation": TEN}, "simulation", "none with runtime bus"),
    (
        {"runtime": "simulation", "simulation": TEN, "min_clients": 11},
        "simulation",
        "clients: at least min_clients, which is 11",
    ),
    (
        {"runtime": "simulation", "simulation": {**TEN, "data": "here"}},
        "simulation.data",
        r"text matching ^/[^\x00-\x1f]{0,1000}$",
    ),
]


@pytest.mark.parametrize(("spec", "path", "allowed"), SIMULATED)
def test_what_cannot_be_simulated_is_refused(spec: dict[str, Any], path: str, allowed: str) -> None:
    found = problems(document(**spec))
    assert found.keys() == {f"spec.{path}"}
    assert found[f"spec.{path}"][1] == allowed


@pytest.mark.parametrize("address", ["localhost", "http://a:1", "a:b", "ray://a", "a:123456"])
def test_what_is_no_address_of_ray_is_refused(address: str) -> None:
    simulation = {**TEN, "ray_address": address}
    found = problems(document(runtime="simulation", simulation=simulation))
    assert found.keys() == {"spec.simulation.ray_address"}


NOT_BUILT: list[tuple[dict[str, Any], str]] = [
    ({"dp": {"epsilon": 1.0, "delta": 1e-5}}, "spec.dp"),
    ({"dp": {"epsilon": [1]}}, "spec.dp"),
    ({"secure_agg": True}, "spec.secure_agg"),
    ({"client_selector": {"embedding_query": "like ours"}}, "spec.client_selector.embedding_query"),
]


@pytest.mark.parametrize(("spec", "path"), NOT_BUILT)
def test_what_is_declared_but_not_built_is_refused_and_says_so(
    spec: dict[str, Any], path: str
) -> None:
    found = problems(document(**spec))
    assert found.keys() == {path}
    assert "not built yet" in found[path][1]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ({**document(), "specs": 1}, "specs"),
        (with_metadata(name="demo", tennant="acme"), "metadata.tennant"),
        (document(num_round=3), "spec.num_round"),
        (document(numRound=3), "spec.numRound"),
        (document(model_ref={"uri": "builtin:hospital", "sha": "x"}), "spec.model_ref.sha"),
        (document(strategy={"parameters": {}}), "spec.strategy.parameters"),
        (document(round_policy={"quorom": 1}), "spec.round_policy.quorom"),
        (document(client_selector={"tag": []}), "spec.client_selector.tag"),
        (document(dataset_spec={"hash": []}), "spec.dataset_spec.hash"),
        (document(lease={"ttl": 60}), "spec.lease.ttl"),
        (document(artifacts={"path": "x"}), "spec.artifacts.path"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level(written: object, path: str) -> None:
    assert {at: allowed for at, (_, allowed) in problems(written).items()} == {path: "no such key"}


def test_what_is_required_and_missing_is_named() -> None:
    found = problems({"metadata": {}, "spec": {}})
    assert set(found) == {
        "api_version", "metadata.name", "spec.app", "spec.model_ref", "spec.num_rounds",
    }  # fmt: skip
    assert set(found.values()) == {("nothing", "required")}


def test_every_rule_that_is_broken_is_reported_at_once() -> None:
    written = {
        "apiVersion": "flowerbed/v2",
        "metadata": {"name": "No Name", "tenant": "a.b", "labels": {"Team": 3}},
        "spec": {
            "app": "builtin:hospital",
            "modelRef": {"uri": "ftp://x", "sha256": "zz"},
            "numRounds": 0,
            "clientFraction": 2,
            "train": {"localEpochs": 0, "Layers": [1], "extra": None},
            "roundPolicy": {"quorum": 7},
            "secureAgg": True,
            "clientSelector": {"tenant": "other"},
            "lease": {"ttlSeconds": 1, "max": 2},
            "nonsense": {},
        },
    }
    assert problems(written).keys() == {
        "api_version", "metadata.name", "metadata.tenant", "metadata.labels.Team",
        "spec.model_ref.uri", "spec.model_ref.sha256", "spec.num_rounds", "spec.client_fraction",
        "spec.train.local_epochs", "spec.train.layers", "spec.train.extra",
        "spec.round_policy.quorum", "spec.secure_agg", "spec.client_selector.tenant",
        "spec.lease.ttl_seconds", "spec.lease.max", "spec.nonsense",
    }  # fmt: skip


def test_a_federation_selects_its_own_tenants_clients() -> None:
    allowed = "metadata.tenant 'acme': a federation selects its own tenant's clients"
    found = problems(document(client_selector={"tenant": "other"}))
    assert found == {"spec.client_selector.tenant": ("'other'", allowed)}
    camel = document()
    camel["spec"]["clientSelector"] = {"tenant": "other"}
    assert problems(camel) == found
    assert parse_spec(document(client_selector={"tenant": "acme"}))


def test_a_tenant_that_is_not_named_is_the_default_one() -> None:
    written = with_metadata(name="demo")
    written["spec"]["client_selector"] = {"tenant": "acme"}
    assert problems(written).keys() == {"spec.client_selector.tenant"}
    written["spec"]["client_selector"] = {"tenant": "default"}
    assert parse_spec(written).metadata.tenant == "default"


@pytest.mark.parametrize(
    ("written", "path", "value"),
    [
        (document(numRounds=5), "spec.num_rounds", "num_rounds: 2, numRounds: 5"),
        (
            document(train={"localEpochs": 5, "local_epochs": 3}),
            "spec.train.local_epochs",
            "localEpochs: 5, local_epochs: 3",
        ),
        (
            document(train={"weightDecay": 0.5, "weight_decay": 0.1}),
            "spec.train.weight_decay",
            "weightDecay: 0.5, weight_decay: 0.1",
        ),
        (
            document(strategy={"name": "fedprox", "params": {"proximalMu": 1, "proximal_mu": 2}}),
            "spec.strategy.params.proximal_mu",
            "proximalMu: 1, proximal_mu: 2",
        ),
        (
            {**document(), "api_version": "flowerbed/v1"},
            "api_version",
            "apiVersion: 'flowerbed/v1', api_version: 'flowerbed/v1'",
        ),
    ],
)
def test_a_key_in_both_spellings_is_refused_for_one_would_be_ignored(
    written: object, path: str, value: str
) -> None:
    assert problems(written) == {path: (value, "one spelling of the key")}


@pytest.mark.parametrize("written", [None, "spec", 3, [], ["apiVersion"], True])
def test_what_is_no_mapping_is_refused(written: object) -> None:
    assert problems(written) == {"": (repr(written), "a mapping with apiVersion first")}


@pytest.mark.parametrize("key", ["\ud800", "a\0b", 7])
def test_a_key_that_cannot_be_printed_is_refused_like_any_other(key: object) -> None:
    written: dict[object, Any] = dict(document().items())
    written[key] = 1
    assert len(problems(written)) == 1


def test_a_long_value_is_shown_by_its_beginning() -> None:
    ((value, _),) = problems(document(app="x" * 5000)).values()
    assert len(value) == 80 and value.endswith("x…")


def test_the_error_says_every_problem_in_one_line() -> None:
    with pytest.raises(SpecRefused, match=r"spec.num_rounds: .* got 0; spec.min_clients: .* got 0"):
        parse_spec(document(num_rounds=0, min_clients=0))
