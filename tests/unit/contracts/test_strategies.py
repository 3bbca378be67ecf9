"""Strategies in a spec: Flower's names, parameters and defaults, and what each asks of a round."""

import inspect
from typing import Any, get_args

import pytest

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.strategies import (
    CUSTOM,
    OF_ONE_BASE,
    PARAMETERS,
    SAID_ELSEWHERE,
    SCAFFOLD,
    StrategyName,
    least_updates,
    trimmed,
)
from tests.support import flower
from tests.support.federations import document, spec_of

OF_RECORDS = {
    "self", "weighted_by_key", "arrayrecord_key", "configrecord_key", "train_metrics_aggr_fn",
    "evaluate_metrics_aggr_fn", "selection_rule", "train_loss_key",
}  # fmt: skip
"""Parameters of Flower's that name parts of its messages, or are functions."""


def told(**spec: Any) -> dict[str, str]:
    with pytest.raises(SpecRefused) as refused:
        parse_spec(document(**spec))
    return {one.path: one.allowed for one in refused.value.problems}


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {SCAFFOLD}))
def test_parameters_and_defaults_are_those_of_flowers_strategy(name: str) -> None:
    signature = inspect.signature(flower.STRATEGIES[name].__init__).parameters
    theirs = {
        key: None if one.default is inspect.Parameter.empty else one.default
        for key, one in signature.items()
        if key not in OF_RECORDS | set(SAID_ELSEWHERE) | {"kwargs"}
    }
    ours = {key: number.default for key, number in PARAMETERS[name].items()}
    if name == "fedprox":
        theirs["proximal_mu"] = None  # at Flower's default of 0 it is FedAvg: ask for one
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_default_is_written_out_and_read_back(name: str) -> None:
    given = {"proximal_mu": 0.1} if name == "fedprox" else {}
    spec = spec_of(min_clients=5, strategy={"name": name, "params": given})
    assert spec.spec.strategy.params.keys() == PARAMETERS[name].keys()
    assert parse_spec(spec.document()) == spec == parse_spec(spec.brief())


def test_every_name_is_built() -> None:
    assert set(get_args(StrategyName)) == {*PARAMETERS, CUSTOM}


PUSHED = {"app": f"fab:{'a' * 64}", "model_ref": {"uri": "app:mine:Net"}}
NAMED = "MODULE:NAME of a Flower Strategy, with name custom and no other"


def test_a_strategy_of_ones_own_is_named_by_its_object_and_takes_its_own_params() -> None:
    given = {"custom": "mine.strategy:make", "params": {"pace": 0.5, "shape": "round"}}
    spec = spec_of(**PUSHED, strategy=given)
    assert (spec.spec.strategy.name, spec.spec.strategy.params) == ("custom", given["params"])
    assert parse_spec(spec.document()) == spec == parse_spec(spec.brief())
    assert spec.release == 2
    spec_of(strategy={"custom": "flwr.serverapp.strategy:FedAdam"})
    assert "custom" not in spec_of().brief()["spec"]["strategy"]


@pytest.mark.parametrize(
    ("spec", "path", "allowed"),
    [
        ({"strategy": {"name": "custom"}}, "spec.strategy.custom", NAMED),
        (
            {"strategy": {"name": "fedavg", "custom": "mine:make"}, **PUSHED},
            "spec.strategy.custom",
            NAMED,
        ),
        (
            {"strategy": {"custom": "mine:make"}},
            "spec.strategy",
            "flwr.serverapp.strategy:NAME, or an app of your own that has mine:make",
        ),
    ],
)  # fmt: skip
def test_one_that_no_app_has_is_refused(spec: dict[str, Any], path: str, allowed: str) -> None:
    assert told(**spec) == {path: allowed}


ABOVE_0, BELOW_1 = "a number greater than 0", "a number at least 0 and less than 1"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("fedavgm", {"server_momentum": 1}, f"fedavgm needs server_momentum, {BELOW_1}"),
    ("fedavgm", {"server_learning_rate": 0}, f"fedavgm needs server_learning_rate, {ABOVE_0}"),
    ("fedadam", {"eta": "0.1"}, f"fedadam needs eta, {ABOVE_0}"),
    ("fedadam", {"eta": True}, f"fedadam needs eta, {ABOVE_0}"),
    ("fedadam", {"beta_1": -0.1}, f"fedadam needs beta_1, {BELOW_1}"),
    ("fedyogi", {"tau": 0}, f"fedyogi needs tau, {ABOVE_0}"),
    ("fedadagrad", {"beta_1": 0.9}, "unknown params ['beta_1'] for fedadagrad: ['eta', 'tau']"),
    (
        "fedadagrad",
        {"eta_l": 0.1, "eta": -1},
        "unknown params ['eta_l'] for fedadagrad: ['eta', 'tau'];"
        f" eta_l is spec.train.learning_rate; fedadagrad needs eta, {ABOVE_0}",
    ),
    (
        "fedtrimmedavg",
        {"beta": 0.5},
        "fedtrimmedavg needs beta, a number at least 0 and less than 0.5",
    ),
    ("krum", {"num_malicious_nodes": 0.5}, "krum needs num_malicious_nodes, an integer at least 0"),
    (
        "multikrum",
        {"num_nodes_to_select": 0},
        "multikrum needs num_nodes_to_select, an integer at least 1",
    ),
]


@pytest.mark.parametrize(("name", "params", "allowed"), REFUSED)
def test_a_parameter_is_refused_with_what_is_allowed(
    name: str, params: dict[str, Any], allowed: str
) -> None:
    found = told(min_clients=5, strategy={"name": name, "params": params})
    assert found == {"spec.strategy.params": allowed}


def test_camel_case_is_read_too() -> None:
    strategy = {"name": "krum", "params": {"numMaliciousNodes": 1}}
    assert spec_of(min_clients=5, strategy=strategy).spec.strategy.params == {
        "num_malicious_nodes": 1
    }


def test_scaffold_needs_clients_that_remember() -> None:
    found = told(strategy={"name": "scaffold"}, runtime="superlink")
    assert found == {"spec.runtime": "scaffold has clients that remember: runtime bus"}


# --- what robust strategies ask of a round ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "least"),
    [
        ("fedavg", {}, 1),
        ("fedadam", {}, 1),
        ("fedmedian", {}, 3),
        ("fedtrimmedavg", {"beta": 0.2}, 5),
        ("fedtrimmedavg", {"beta": 0.3}, 4),
        ("fedtrimmedavg", {"beta": 0}, 1),
        ("krum", {"num_malicious_nodes": 0}, 3),
        ("krum", {"num_malicious_nodes": 2}, 7),
        ("multikrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 4}, 5),
        ("multikrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 9}, 10),
        ("bulyan", {"num_malicious_nodes": 1}, 7),
    ],
)
def test_a_rule_needs_so_many_updates(name: str, params: dict[str, Any], least: int) -> None:
    assert least_updates(name, params) == least


@pytest.mark.parametrize(
    ("beta", "n", "cut"), [(0.2, 5, 1), (0.2, 4, 0), (0.29, 100, 29), (0, 9, 0)]
)
def test_what_is_trimmed_is_counted_in_decimal(beta: float, n: int, cut: int) -> None:
    assert trimmed(beta, n) == cut


KRUM = {"name": "krum", "params": {"num_malicious_nodes": 1}}


def test_a_robust_strategy_needs_a_round_that_closes_with_enough_updates() -> None:
    assert spec_of(min_clients=5, strategy=KRUM)
    allowed = (
        "krum needs 5 updates, and with min_clients {}, close_at and quorum a round may close"
        " with {}"
    )
    assert told(min_clients=4, strategy=KRUM) == {"spec.round_policy": allowed.format(4, 4)}
    few = told(min_clients=5, strategy=KRUM, round_policy={"quorum": 0.7})
    assert few == {"spec.round_policy": allowed.format(5, 4)}
    few = told(min_clients=8, strategy=KRUM, round_policy={"close_at": 3})
    assert few == {"spec.round_policy": allowed.format(8, 3)}
    assert spec_of(min_clients=8, strategy=KRUM, round_policy={"quorum": 0.6})


def test_it_is_refused_under_the_default_policy_too() -> None:
    written = document(min_clients=4, strategy=KRUM)
    del written["spec"]["round_policy"]
    with pytest.raises(SpecRefused) as refused:
        parse_spec(written)
    assert [(one.path, one.value) for one in refused.value.problems] == [
        ("spec.round_policy", "the default")
    ]


def named(name: str) -> dict[str, Any]:
    return {
        "name": name,
        **({"custom": "flwr.serverapp.strategy:FedAvg"} if name == CUSTOM else {}),
    }


@pytest.mark.parametrize(
    "policy", [{"mode": "buffered", "buffer_size": 5}, {"late_updates": "next_round"}]
)
@pytest.mark.parametrize("name", sorted(OF_ONE_BASE))
def test_updates_of_other_bases_are_not_compared(name: str, policy: dict[str, Any]) -> None:
    found = told(min_clients=5, strategy=named(name), round_policy=policy)
    allowed = f"{name} compares updates of one base: mode synchronous, late_updates refuse"
    assert found == {"spec.round_policy": allowed}


def test_server_optimizers_work_under_every_policy() -> None:
    for policy in ({"mode": "buffered", "buffer_size": 2}, {"late_updates": "next_round"}):
        assert spec_of(strategy={"name": "fedadam"}, round_policy=policy)


def test_a_spec_that_names_a_later_strategy_is_not_for_the_first_release() -> None:
    assert spec_of(strategy={"name": "fedadam"}).release == 2
    prox = {"name": "fedprox", "params": {"proximal_mu": 1}}
    assert {spec_of().release, spec_of(strategy=prox).release} == {1}


# --- weightings ------------------------------------------------------------------------------


def test_a_weighting_is_not_for_the_first_release_and_the_default_is_left_out() -> None:
    plain, recent = spec_of(), spec_of(strategy={"weighting": {"recency": 0.5}})
    assert (plain.release, recent.release) == (1, 2)
    assert plain.brief()["spec"]["strategy"] == {"name": "fedavg", "params": {}}
    assert parse_spec(recent.brief()) == recent


@pytest.mark.parametrize(
    ("weighting", "path", "allowed"),
    [
        ({"entropy": 1}, "entropy", "input should be a valid boolean"),
        ({"recency": -1}, "recency", "input should be greater than or equal to 0"),
        ({"examples": 1}, "examples", "input should be a valid boolean"),
        ({"age": 1}, "age", "no such key"),
    ],
)
def test_a_weighting_is_refused_with_what_is_allowed(
    weighting: dict[str, Any], path: str, allowed: str
) -> None:
    assert told(strategy={"weighting": weighting}) == {f"spec.strategy.weighting.{path}": allowed}


@pytest.mark.parametrize("name", sorted(OF_ONE_BASE))
def test_who_weighs_by_a_rule_of_its_own_takes_no_weighting(name: str) -> None:
    found = told(min_clients=5, strategy={**named(name), "weighting": {"examples": False}})
    allowed = f"{name} weighs by its own rule: leave weighting out"
    assert found == {"spec.strategy.weighting": allowed}
    assert spec_of(min_clients=5, strategy={**named(name), "weighting": {"examples": True}})
