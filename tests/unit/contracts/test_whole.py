"""A spec of a whole ServerApp says less, and says it to the app alone."""

from typing import Any

import pytest

from flowerbed.contracts.bundle import read_bundle, run_config
from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.spec import FederationSpec
from tests.support.apps import bundle, digest

APP = f"fab:{'a' * 64}"


def document(**spec: Any) -> dict[str, Any]:
    written = {"app": APP, "server_app": "whole", "num_rounds": 3, **spec}
    return {"apiVersion": "flowerbed/v1", "metadata": {"name": "x"}, "spec": written}


def refused(**spec: Any) -> dict[str, str]:
    with pytest.raises(SpecRefused) as found:
        parse_spec(document(**spec))
    return {problem.path: problem.allowed for problem in found.value.problems}


def test_it_needs_no_model_and_is_of_the_second_release() -> None:
    spec = parse_spec(document())
    assert spec.spec.is_whole and spec.spec.model_ref is None
    assert spec.release == 2
    assert FederationSpec.model_validate(spec.brief()) == spec
    assert FederationSpec.model_validate(spec.document()) == spec


def test_the_app_is_told_only_what_was_said() -> None:
    spec = parse_spec(document(train={"lr": 0.5, "batch_size": 8}))
    assert spec.spec.hyper_parameters == {"lr": 0.5, "batch_size": 8, "num_server_rounds": 3}
    again = FederationSpec.model_validate(spec.document())
    assert again.spec.hyper_parameters == spec.spec.hyper_parameters


def test_what_the_app_decides_itself_is_refused() -> None:
    assert refused(
        model_ref={"uri": "app:a.b:Net"},
        strategy={"name": "fedmedian"},
        client_fraction=0.5,
        round_policy={"close_at": 2, "quorum": 0.5, "deadline_seconds": 5},
    ) == {
        "spec.model_ref": "no model_ref: with server_app whole the app makes its own arrays",
        "spec.strategy": "no strategy: with server_app whole the app brings its own",
        "spec.client_fraction": "1.0: with server_app whole the app's strategy chooses its nodes",
        "spec.round_policy": "with server_app whole only deadline_seconds, max_attempts,"
        " join_deadline_seconds: not close_at, quorum",
    }


def test_an_app_that_ships_with_us_has_its_rounds_run() -> None:
    found = refused(app="builtin:hospital")
    assert found["spec.server_app"] == (
        "strategy: an app that ships with this version has its rounds run"
    )


def test_without_it_nothing_is_new() -> None:
    written = document(app="builtin:hospital", model_ref={"uri": "builtin:hospital"})
    del written["spec"]["server_app"]
    spec = parse_spec(written)
    assert "server_app" not in spec.brief()["spec"]
    assert spec.spec.hyper_parameters["local_epochs"] == 1


def test_the_number_of_rounds_is_told_to_an_app_that_has_a_name_for_it() -> None:
    raw = bundle()
    app = read_bundle(raw)
    assert (app.sha256, app.server_app) == (digest(raw), "drift.server_app:app")
    told = {"num_server_rounds": 3, "lr": 1}
    assert run_config(app.config, told) == {"local-epochs": 1, "lr": 1.0, "optimizer.name": "sgd"}
