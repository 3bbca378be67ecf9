"""`flowerbed federation policy`: what is shown, what is asked of the gateway, what is refused."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flowerbed.cli import federation
from flowerbed.contracts.policy import RoundPolicy
from tests.unit.cli.federation_views import FED, a_federation
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

PATH = f"POST /federations/{FED}/policy"


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


def policy(stub: StubGateway, *arguments: str) -> Any:
    return run(federation.app, "policy", FED, *arguments, url=stub.url)


def shown(stub: StubGateway, **round_policy: Any) -> None:
    spec = {"spec": {"round_policy": round_policy}} if round_policy else {"spec": {}}
    stub.answer(f"GET /federations/{FED}", {**a_federation(), "spec": spec})


def changed(stub: StubGateway, *names: str, **round_policy: Any) -> None:
    stub.answer(
        PATH,
        {
            "federation_id": FED,
            "events": ["fl.federation.policy_changed"] if names else [],
            "policy": RoundPolicy(**round_policy).model_dump(mode="json"),
            "changed": names,
            "counts_from": "round 3, attempt 1, which starts next",
        },
    )


def test_the_policy_is_shown_with_the_time_outs_that_follow(stub: StubGateway) -> None:
    shown(stub, deadline_seconds=60.0, quorum=0.5)
    for arguments in ((), ("--show",)):
        found = policy(stub, *arguments)
        assert found.exit_code == 0, found.output
        lines = {line.split("  ")[0].strip(): line for line in found.stdout.splitlines()}
        assert lines["quorum"].split() == ["quorum", "0.5"]
        assert lines["close_at"].split() == ["close_at", "-"]
        assert lines["the aggregator takes what it has after"].rstrip().endswith("90 s")
        assert lines["a whole round takes at most"].rstrip().endswith("480 s")
    assert [asked[0] for asked in stub.asked] == ["GET", "GET"]


def test_as_json_the_policy_is_whole_even_if_the_spec_said_little(stub: StubGateway) -> None:
    shown(stub)
    told = json.loads(policy(stub, "--output", "json").stdout)
    assert told["policy"] == RoundPolicy().model_dump(mode="json")
    assert told["seconds"]["exchange"] == 600.0 and told["seconds"]["round"] == 2880.0


def test_only_the_changed_keys_are_sent_and_what_changed_is_said(stub: StubGateway) -> None:
    changed(stub, "quorum", "close_at", quorum=0.5, close_at=3)
    found = policy(stub, "--quorum", "0.5", "--close-at", "3", "--reason", "slow site")
    assert found.exit_code == 0, found.output
    sent = {"quorum": 0.5, "close_at": 3, "reason": "slow site"}
    assert stub.asked == [("POST", f"/federations/{FED}/policy", sent)]
    assert found.stdout.splitlines()[-1] == (
        "changed quorum, close_at; counts from round 3, attempt 1, which starts next"
    )
    assert sum("changed" in line for line in found.stdout.splitlines()) == 3


def test_a_goal_for_all_and_a_switch_can_be_written_too(stub: StubGateway) -> None:
    changed(stub, "close_at")
    policy(stub, "--no-close-at", "--no-replace-dropped", "--mode", "synchronous")
    assert stub.asked[0][2] == {
        "close_at": None, "replace_dropped": False, "mode": "synchronous", "reason": "",
    }  # fmt: skip


def test_what_is_so_already_changes_nothing(stub: StubGateway) -> None:
    changed(stub)
    found = policy(stub, "--quorum", "1")
    assert found.stdout.splitlines()[-1] == "nothing changed: the policy was so already"
    as_json = json.loads(policy(stub, "--quorum", "1", "-o", "json").stdout)
    assert as_json["changed"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quorum", "most"), "is not a valid float"),
        (("--close-at", "1.5"), "is not a valid int"),
        (("--mode", "chaotic"), "is not one of"),
        (("--quorum", "nan"), "--quorum nan: a finite number"),
        (("--budget-seconds", "inf"), "--budget-seconds inf: a finite number"),
        (("--close-at", "2", "--no-close-at"), "not both"),
        (("--show", "--quorum", "0.5"), "--show changes nothing"),
    ],
)
def test_bad_input_is_said_and_nothing_is_asked(
    stub: StubGateway, arguments: tuple[str, ...], said: str
) -> None:
    found = policy(stub, *arguments)
    assert (found.exit_code, stub.asked) == (2, [])
    assert said in " ".join(found.output.split())


def test_broken_rules_are_listed_as_they_are_for_a_spec(stub: StubGateway) -> None:
    rule = {"path": "round_policy.quorum", "value": "2.0", "allowed": "at most 1"}
    problem = {"status": 422, "code": "policy-refused", "detail": "1 broken rule in the policy"}
    stub.answer(PATH, {**problem, "errors": [rule]}, 422)
    found = policy(stub, "--quorum", "2")
    assert found.exit_code == 2
    assert "round_policy.quorum" in found.output and "at most 1" in found.output
    assert "1 broken rule in the policy" in found.output


def test_a_federation_that_is_over_or_refused_has_no_policy_to_change(stub: StubGateway) -> None:
    problem = {"status": 409, "code": "federation-ended", "detail": "the federation is completed"}
    stub.answer(PATH, problem, 409)
    assert policy(stub, "--quorum", "0.5").exit_code == 1
    stub.answer(f"GET /federations/{FED}", {**a_federation(), "spec": None})
    found = policy(stub)
    assert (found.exit_code, "it has no policy" in found.output) == (1, True)
