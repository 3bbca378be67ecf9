"""`flowerbed audit`, and what a command does when it asks too often."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flowerbed.cli import audit, rate_limit
from flowerbed.cli.api import Api, Unreachable
from tests.unit.cli.federation_views import FED
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

APP = audit.app


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


def row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "at": "2026-01-01T12:00:00+00:00", "actor": "local-token", "issuer": "local",
        "role": "admin", "tenant": "acme", "address": "127.0.0.1", "method": "POST",
        "path": f"/federations/{FED}/pause", "action": "pause", "status": 200, "code": "",
        "federation_id": FED, **more,
    }  # fmt: skip


def test_the_trail_is_a_table_for_people(stub: StubGateway) -> None:
    stranger = row(1, actor="", role="", tenant="", status=401, code="unauthorized")
    stub.answer("GET /audit", {"rows": [row(2), stranger], "next_before": None})
    found = run(APP, "--federation", FED, "--since", "24h", url=stub.url)
    assert found.exit_code == 0, found.output
    assert "local-token" in found.stdout and f"POST /federations/{FED}/pause" in found.stdout
    assert "(127.0.0.1)" in found.stdout and "unauthorized" in found.stdout
    asked = stub.asked[0][1]
    assert f"federation={FED}" in asked and "since=20" in asked


def test_pages_are_read_up_to_the_limit(stub: StubGateway) -> None:
    stub.answer("GET /audit", {"rows": [row(n) for n in (9, 8)], "next_before": 8})
    stub.answer("GET /audit", {"rows": [row(7)], "next_before": 7})
    found = run(APP, "--limit", "3", "--output", "json", url=stub.url)
    assert [one["id"] for one in json.loads(found.stdout)] == [9, 8, 7]
    assert "before=8" in stub.asked[1][1] and "limit=1" in stub.asked[1][1]


@pytest.mark.parametrize("since", ["yesterday", "7w", "", "2026-13-01"])
def test_a_time_that_is_none_is_bad_input(stub: StubGateway, since: str) -> None:
    found = run(APP, "--since", since, url=stub.url)
    assert found.exit_code == 2
    assert "--since" in found.stderr and stub.asked == []


def test_a_command_that_asks_too_often_waits_as_it_is_told_and_says_so(
    stub: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    problem = {"status": 429, "code": "too-many-requests", "detail": "too often"}
    for seconds in ("3", "1"):
        stub.answer("GET /audit", problem, 429)
        stub.reply_headers.append({"retry-after": seconds})
    stub.answer("GET /audit", {"rows": [], "next_before": None})
    found = run(APP, url=stub.url)
    assert found.exit_code == 0, found.output
    assert waited == [3.0, 1.0]
    assert "the gateway is asked too often; waiting 3 s" in found.stderr


def test_who_follows_events_too_often_waits_and_goes_on_where_it_was(
    stub: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    stub.answer("GET /events", {"status": 429, "detail": "too often"}, 429)
    stub.reply_headers.append({"retry-after": "2"})
    with pytest.raises(Unreachable, match="asking again"):
        list(Api(stub.url, "secret").stream(7))
    assert waited == [2.0] and stub.headers[0]["last-event-id"] == "7"


def test_a_command_does_not_wait_for_ever(
    stub: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    problem = {"status": 429, "code": "too-many-requests", "detail": "asks too often"}
    stub.answer("GET /audit", problem, 429)
    stub.reply_headers += [{"retry-after": "100"}] * 9
    found = run(APP, url=stub.url)
    assert found.exit_code == 1 and "asks too often" in found.stderr
    assert sum(waited) <= rate_limit.LONGEST_WAIT
