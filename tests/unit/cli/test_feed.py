"""`flowerbed events`: pages, a stream that is resumed, and where it ended."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flowerbed.cli import feed, services
from flowerbed.cli.sse import events
from tests.unit.cli.federation_views import AT, FED
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway


def event(position: int, type_: str = "fl.round.started", **data: Any) -> dict[str, Any]:
    return {
        "position": position, "id": str(position), "type": type_, "stream": f"federation-{FED}",
        "version": position, "recorded_at": AT, "causation_id": None, "data": data,
        "tenant": "acme", "federation_id": FED, "actor": None, "traceparent": None,
    }  # fmt: skip


def frames(*found: dict[str, Any]) -> bytes:
    told = [
        f"id: {one['position']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n" for one in found
    ]
    return ("retry: 1000\n\n: alive\n\n" + "\n".join(told) + "\n").encode()


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_events_are_read_out_of_a_stream() -> None:
    lines = ["retry: 1000", "", ": alive", "", "id: 4", "event: a", 'data: {"x":', "data: 1}", ""]
    assert list(events([*lines, 'data: {"cut": "off'])) == [{"x": 1}]


def test_all_pages_are_shown_and_the_position_last(stub: StubGateway) -> None:
    stub.answer("GET /events", {"events": [event(8, round_number=2)], "next_after": 8})
    stub.answer("GET /events", {"events": [], "next_after": 8})

    found = run(
        feed.app, "--after", "7", "--federation", FED, "--type", "fl.round.started",
        "--type", "fl.round.failed", url=stub.url,
    )  # fmt: skip

    assert found.exit_code == 0
    (line,) = found.stdout.splitlines()
    assert line.split()[0] == "8" and "fl.round.started" in line and line.endswith("round 2")
    assert found.stderr == "go on with --after 8\n"
    assert stub.asked[0][1] == (
        f"/events?after=7&limit=1000&federation={FED}&type=fl.round.started&type=fl.round.failed"
    )


def test_a_broken_stream_is_resumed_behind_the_last_event(
    stub: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer("GET /events", frames(event(1), event(2)))
    stub.answer("GET /events", {"detail": "away"}, 503)
    stub.answer("GET /events", frames(event(3)))
    stub.answer("GET /events", {"code": "unauthorized", "detail": "enough"}, 401)

    found = run(feed.app, "--follow", "-o", "json", url=stub.url)

    assert [json.loads(line)["position"] for line in found.stdout.splitlines()] == [1, 2, 3]
    assert [one["last-event-id"] for one in stub.headers] == ["0", "2", "2", "3"]
    assert found.exit_code == 1 and "enough" in found.stderr


# --- services and objectives ------------------------------------------------

READY = {"replica": 1, "status": "ready", "checks": {}, "failing": {}, "lags": {}, "detail": ""}


def service(name: str, status: str, letters: int | None, *replicas: dict[str, Any]) -> Any:
    return {"name": name, "status": status, "dead_letters": letters, "replicas": list(replicas)}


def test_services_are_shown_replica_by_replica(stub: StubGateway) -> None:
    behind = READY | {"status": "not-ready", "replica": 2, "lags": {"relay": 7.0, "x": 0.0},
                      "checks": {"postgres": "away", "nats": "ok"}}  # fmt: skip
    found = [
        service("lease", "degraded", 3, READY, behind),
        service("artifact", "ready", None, READY),
    ]
    stub.answer("GET /services", {"services": found})

    table = run(services.app, url=stub.url)
    as_json = run(services.app, "-o", "json", url=stub.url)

    assert table.exit_code == as_json.exit_code == 1
    rows = [line.split("  ") for line in table.stdout.splitlines()]
    assert [cell.strip() for cell in rows[2] if cell.strip()] == [
        "lease", "2", "not-ready", "relay 7", "3", "postgres: away",
    ]  # fmt: skip
    assert "not known" in table.stdout
    assert json.loads(as_json.stdout) == found


def test_objectives_are_shown_with_what_is_left(stub: StubGateway) -> None:
    indicator = {
        "name": "rounds", "means": "completed", "objective": 0.99, "good": 9, "total": 10,
        "ratio": 0.9, "budget_left": -9.0, "p50_seconds": 1.0, "p95_seconds": 2.5,
    }  # fmt: skip
    empty = indicator | {"name": "joins", "ratio": None, "budget_left": None, "p95_seconds": None}
    stub.answer("GET /slo", {"indicators": [indicator, empty]})

    table = run(services.slo_app, "--hours", "24", url=stub.url)

    for text in ("90.0 %", "99.0 %", "-900.0 %", "9 of 10", "2.50 s"):
        assert text in table.stdout, text
    assert stub.asked[0][1] == "/slo?hours=24"
