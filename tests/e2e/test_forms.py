"""One federation in each form of update on real data: what is sent, recorded and stable.

`delta` is exact, so its federation ends in the bytes of the one that sends all; the others end in
bytes of their own, and the same ones whatever is killed meanwhile.
"""

from typing import Any

import httpx
import pytest

from tests.e2e.documents import hospital
from tests.e2e.test_own_apps import run
from tests.e2e.test_sites import agent_of
from tests.support.field import Field, until

FORMS: dict[str, dict[str, Any]] = {
    "full": {},
    "delta": {"form": "delta"},
    "bfloat16": {"form": "bfloat16"},
    "int8": {"form": "int8", "block": 64},
    "top_k": {"form": "top_k", "fraction": 0.05},
}
ROUNDS = 3
TRAIN = {"local_epochs": 40, "learning_rate": 0.005, "seed": 3}
"""Rounds that take a moment, so that there is a middle to be killed in."""


def document(form: str) -> dict[str, Any]:
    update = {"update": FORMS[form]} if FORMS[form] else {}
    return hospital(num_rounds=ROUNDS, train=TRAIN, **update)


@pytest.fixture(scope="module")
def runs(field: Field) -> dict[str, dict[str, Any]]:
    """All at once, for most of the time each waits."""
    identities = {form: field.submit(document(form)) for form in FORMS}
    return {form: field.completed(identity, 240) for form, identity in identities.items()}


async def accepted(field: Field, run: dict[str, Any]) -> list[dict[str, Any]]:
    history = await field.history("aggregator", run["federation_id"])
    return [
        one["data"]
        for one in history
        if one["type"] == "fl.update.accepted" and one["data"]["exchange"] == "train"
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_each_update_says_how_it_travelled_and_what_that_saved_and_cost(
    field: Field, runs: dict[str, dict[str, Any]], form: str
) -> None:
    updates = await accepted(field, runs[form])
    assert len(updates) == 4 * ROUNDS
    known = {one["form"] for one in updates}
    if form == "full":
        assert known == {None}
        return
    assert known == {form}
    errors = [one["form_error"] for one in updates]
    if form == "delta":
        assert errors == [0.0] * len(updates)
    else:
        assert all(0 < error < 1 for error in errors)
    shown = field.api.get(f"/federations/{runs[form]['federation_id']}/rounds/{ROUNDS}")
    (last,) = shown["attempts"]
    sent = sum(one["artifact"]["size"] for one in updates if one["round_number"] == ROUNDS)
    assert last["update_bytes"]["form"] == form
    assert last["update_bytes"]["sent"] == sent
    full = sum(one["full_size"] for one in updates if one["round_number"] == ROUNDS)
    assert last["update_bytes"]["full"] == full
    printed = run(field, "federation", "show", runs[form]["federation_id"]).stdout
    assert f"{sent / 1024:.1f} KiB {form} ({sent / full:.1%})" in printed
    async with httpx.AsyncClient(base_url=field.stack.service_url("aggregator")) as http:
        told = (await http.get("/metrics")).text
    assert f'fl_update_bytes_total{{form="{form}"}}' in told


@pytest.mark.parametrize("form", FORMS)
def test_every_round_folded_again_gives_the_same_bytes(
    field: Field, runs: dict[str, dict[str, Any]], form: str
) -> None:
    for number in range(1, ROUNDS + 1):
        path = f"/artifacts/{runs[form]['federation_id']}/{number}/verify"
        assert field.api.post(path, patience=60)["identical"] is True


def test_an_exact_form_changes_no_byte(runs: dict[str, dict[str, Any]]) -> None:
    assert runs["delta"]["final"]["sha256"] == runs["full"]["final"]["sha256"]
    finals = {run["final"]["sha256"] for run in runs.values()}
    assert len(finals) == len(FORMS) - 1


def test_site_and_aggregator_killed_change_no_byte_of_top_k(
    field: Field, runs: dict[str, dict[str, Any]]
) -> None:
    """What was left out is counted once, though the work is begun, and answered, twice."""
    with field.submitted_and_held(document("top_k"), 2) as identity:
        agent_of(field.sites[1]).kill()
        dead = field.kill("aggregator")
        until(lambda: field.is_back("aggregator", dead), "the aggregator is started again", 60)
    run = field.completed(identity, 240)
    assert run["final"]["sha256"] == runs["top_k"]["final"]["sha256"]
