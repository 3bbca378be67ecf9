"""`flowerbed federation why`: a readable block, JSON for programs, and honest exit codes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from flowerbed.cli import federation, watching
from flowerbed.cli.why import block
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

FED = "fed-0123456789abcdef"
PATH = f"GET /federations/{FED}/why"
NOW = datetime(2026, 1, 1, 12, 1, tzinfo=UTC)


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as started:
        yield started


def an_answer(**more: Any) -> dict[str, Any]:
    return {
        "federation_id": FED, "status": "running",
        "waits": {"code": "clients-to-train", "what": "round 2, train: 1 of 2 clients (client-b)"},
        "on": [{
            "kind": "client", "id": "client-b", "label": "hospital-b",
            "doing": "was ordered training 30 s ago and has not answered",
            "since": "2026-01-01T12:00:30Z",
        }],
        "since": "2026-01-01T12:00:30Z", "until": "2026-01-01T14:01:00Z",
        "then": "attempt 2 of 3 starts with the same clients", "is_overdue": False,
        "last_error": {
            "at": "2026-01-01T12:00:00Z", "code": "app-failed", "detail": "ValueError: no",
            "traceback": "  app:3 in train\nValueError: no", "client_id": "client-a",
            "label": "hospital-a", "where": "round 1, train",
        },
        "hints": ["flowerbed client status"], **more,
    }  # fmt: skip


def test_the_block_says_everything_and_indents_the_traceback() -> None:
    lines = [line.split("(", 1)[0].rstrip() for line in block(an_answer(), NOW)]
    text = "\n".join(block(an_answer(), NOW))
    assert [line.split(":")[0] for line in lines if line[:1] not in ("", " ")] == [
        "federation", "status", "waits for", "on", "since", "until", "then", "last error", "try",
    ]  # fmt: skip
    assert "[clients-to-train]" in text and "client client-b (hospital-b)" in text
    assert "(30 s ago)" in text and "(in 2.0 h)" in text
    assert "app-failed in round 1, train at client client-a (hospital-a)" in text
    assert "\n                 app:3 in train\n               ValueError: no\n" in text


def test_what_is_not_known_is_left_out() -> None:
    ended = an_answer(
        status="completed", waits={"code": "completed", "what": "nothing any more"}, on=[],
        since=None, until=None, then="", last_error=None, hints=[], is_overdue=True,
    )  # fmt: skip
    assert block(ended, NOW) == [
        f"federation:  {FED}",
        "status:      completed  (overdue)",
        "waits for:   nothing any more  [completed]",
    ]


def test_a_long_list_is_cut() -> None:
    lines = block(an_answer(on=an_answer()["on"] * 12), NOW)
    assert sum(line.startswith("on:") for line in lines) == 11
    assert "on:          2 more: see --output json" in lines


def test_it_is_asked_and_printed(stub: StubGateway) -> None:
    stub.answer(PATH, an_answer())
    table = run(federation.app, "why", FED, url=stub.url)
    as_json = run(federation.app, "why", FED, "--output", "json", url=stub.url)
    assert table.exit_code == as_json.exit_code == 0
    assert "waits for:   round 2, train" in table.stdout
    assert json.loads(as_json.stdout) == an_answer()


def test_an_unknown_federation_is_bad_input(stub: StubGateway) -> None:
    assert run(federation.app, "why", "fed-none", url=stub.url).exit_code == 2


def test_without_a_stack_it_is_not_running(tmp_path: Any) -> None:
    found = run(federation.app, "why", FED, "--state-dir", str(tmp_path / "none"))
    assert found.exit_code == 3


def test_watching_tells_what_changes_until_the_end(
    stub: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.0)
    later = an_answer(on=[{**an_answer()["on"][0], "doing": "was ordered training 31 s ago"}])
    ended = an_answer(status="failed", waits={"code": "failed", "what": "nothing any more"}, on=[])
    for answer in (an_answer(), later, ended):
        stub.answer(PATH, answer)
    found = run(federation.app, "why", FED, "--watch", url=stub.url)
    assert found.exit_code == 0
    assert found.stdout.count("federation:") == 2 and "[failed]" in found.stdout
