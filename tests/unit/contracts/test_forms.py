"""The form of updates in a spec: what it needs, what it goes with, and what old documents say."""

from typing import Any

import pytest

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.strategies import ROBUST
from tests.support.federations import document, spec_of


def told(**spec: Any) -> dict[str, str]:
    with pytest.raises(SpecRefused) as refused:
        parse_spec(document(**spec))
    return {one.path: one.allowed for one in refused.value.problems}


def test_a_spec_that_says_nothing_is_the_document_it_was() -> None:
    spec = spec_of()
    assert spec.spec.update.is_full and spec.release == 1
    assert "update" not in spec.brief()["spec"]
    assert spec_of(update={"form": "full"}) == spec == parse_spec(spec.document())


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ({"form": "delta"}, {"block": None, "fraction": None}),
        ({"form": "bfloat16"}, {"block": None, "fraction": None}),
        ({"form": "int8"}, {"block": 1024, "fraction": None}),
        ({"form": "top_k"}, {"block": None, "fraction": 0.01}),
        ({"form": "top_k", "fraction": 0.25}, {"block": None, "fraction": 0.25}),
    ],
)
def test_what_a_form_needs_is_written_out_and_read_back(
    given: dict[str, Any], whole: dict[str, Any]
) -> None:
    spec = spec_of(update=given)
    assert spec.release == 2
    written = {"form": given["form"], **whole, "trainable": []}
    assert spec.brief()["spec"]["update"] == written
    assert parse_spec(spec.document()) == spec == parse_spec(spec.brief())


@pytest.mark.parametrize(
    ("given", "path", "words"),
    [
        ({"form": "zip"}, "spec.update.form", "'full', 'delta', 'bfloat16', 'int8' or 'top_k'"),
        ({"form": 7}, "spec.update.form", "'full', 'delta', 'bfloat16', 'int8' or 'top_k'"),
        ({"form": "int8", "block": 8}, "spec.update.block", "16"),
        ({"form": "top_k", "fraction": 0.6}, "spec.update.fraction", "0.5"),
        ({"form": "delta", "block": 64}, "spec.update", "block belongs to form int8"),
        ({"form": "int8", "fraction": 0.1}, "spec.update", "fraction belongs to form top_k"),
        ({"form": "top_k", "fraction": None}, "spec.update", "fraction belongs to form top_k"),
        ({"block": 64}, "spec.update", "block belongs to form int8"),
        ("int8", "spec.update", ""),
        ({"trainable": [""]}, "spec.update.trainable.0", "200"),
        ({"trainable": ["*"] * 33}, "spec.update.trainable", "32"),
    ],
)
def test_a_form_that_cannot_be_is_told(given: Any, path: str, words: str) -> None:
    assert words in told(update=given)[path]


@pytest.mark.parametrize("name", sorted(ROBUST))
def test_top_k_does_not_go_with_strategies_that_leave_updates_out(name: str) -> None:
    refused = told(min_clients=5, strategy={"name": name}, update={"form": "top_k"})
    assert refused["spec.update"].startswith(f"{name} may leave updates out")
    assert spec_of(min_clients=5, strategy={"name": name}, update={"form": "int8"}).release == 2


@pytest.mark.parametrize(
    ("form", "label"), [("full", "adapter"), ("delta", "adapter+delta"), ("top_k", "adapter+top_k")]
)
def test_where_only_some_tensors_travel_the_form_is_an_adapters(form: str, label: str) -> None:
    spec = spec_of(update={"form": form, "trainable": ["*.lora_*", "head.*"]})
    assert (spec.spec.update.label, spec.release) == (label, 2)
    assert not spec.spec.update.is_full
    assert parse_spec(spec.document()) == spec == parse_spec(spec.brief())


@pytest.mark.parametrize("update", [{"form": "delta"}, {"trainable": ["head.*"]}])
def test_only_the_bus_carries_other_forms_than_full(update: dict[str, Any]) -> None:
    app = {"app": f"fab:{'a' * 64}", "model_ref": {"uri": "app:x:Net"}}
    refused = told(**app, runtime="superlink", update=update)
    assert "updates need runtime bus: over superlink, form full" in refused["spec.update"]
    assert spec_of(**app, runtime="superlink").spec.update.is_full


@pytest.mark.parametrize("name", ["scaffold", "fedxgbbagging", "fedxgbcyclic"])
def test_strategies_that_take_more_than_weights_have_full_alone(name: str) -> None:
    refused = told(strategy={"name": name}, update={"form": "delta"})
    assert refused["spec.update"].startswith(f"{name} takes more than the weights of a model")
