"""Which federation's spans go where: looked up once, held back until then, and bounded."""

import logging
from collections.abc import Collection

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from flowerbed.contracts.telemetry import Telemetry
from flowerbed.events import routes as module
from flowerbed.events.destinations import Destinations
from flowerbed.events.routes import Routes
from tests.support.spans import span_of

ORIGIN = "http://a.example:4318"
A = Telemetry(otlp_endpoint=ORIGIN)
B = Telemetry(otlp_endpoint="http://b.example:4318")


class Kept(Destinations):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []

    def send(self, to: Telemetry, span: ReadableSpan) -> None:
        self.sent.append((to.otlp_endpoint, span.name))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def routed(kept: Kept, clock: Clock, allowed: Collection[str] = (ORIGIN,)) -> Routes:
    return Routes(allowed, kept, clock)


def test_spans_wait_until_it_is_known_where_they_go(kept: Kept, clock: Clock) -> None:
    routes = routed(kept, clock)
    for federation_id in ("fed-1", "fed-2", "fed-1"):
        routes.on_end(span_of(federation_id, f"of {federation_id}"))
    assert (routes.asked(), kept.sent) == (["fed-1", "fed-2"], [])
    routes.told({"fed-1": A, "fed-2": None})
    assert (routes.asked(), kept.sent) == ([], [(ORIGIN, "of fed-1")] * 2)
    for federation_id in ("fed-1", "fed-2"):
        routes.on_end(span_of(federation_id, "later"))
    assert (routes.asked(), kept.sent[2:]) == ([], [(ORIGIN, "later")])


def test_spans_of_no_federation_go_nowhere(kept: Kept, clock: Clock) -> None:
    routes = routed(kept, clock)
    routes.on_end(span_of("fed-1", "GET /", is_named=False))
    assert (routes.asked(), kept.sent) == ([], [])


def test_a_span_of_the_trace_goes_along_without_naming_the_federation(
    kept: Kept, clock: Clock
) -> None:
    routes = routed(kept, clock)
    routes.on_end(span_of("fed-1", "named"))
    routes.told({"fed-1": A})
    routes.on_end(span_of("fed-1", "GET /", is_named=False))
    assert [name for _, name in kept.sent] == ["named", "GET /"]


def test_what_the_process_does_not_allow_gets_nothing_and_is_said_once(
    kept: Kept, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    routes = routed(kept, clock)
    for _ in range(3):
        routes.on_end(span_of("fed-1", "secret"))
        routes.told(dict.fromkeys(routes.asked(), B))
    assert kept.sent == []
    assert [line for line in caplog.messages if "otlp_allowed" in line] == [
        "no spans of fed-1 are sent to http://b.example:4318: otlp_allowed does not name it"
    ]


def test_who_is_never_found_waits_no_longer_and_is_asked_for_again_later(
    kept: Kept, clock: Clock
) -> None:
    routes = routed(kept, clock)
    routes.on_end(span_of("fed-1", "lost"))
    clock.now = module.PATIENCE + 1
    assert routes.asked() == []
    routes.on_end(span_of("fed-1", "dropped at once"))
    assert routes.asked() == []
    clock.now += module.PATIENCE + 1
    routes.on_end(span_of("fed-1", "kept"))
    assert routes.asked() == ["fed-1"]
    routes.told({"fed-1": A})
    assert kept.sent == [(ORIGIN, "kept")]


def test_nothing_piles_up(kept: Kept, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    monkeypatch.setattr(module, "MOST_KNOWN", 3)
    routes = routed(kept, clock)
    for number in range(20):
        routes.on_end(span_of(f"fed-{number}", "one"))
    assert len(routes.asked()) == 10
    routes.told(dict.fromkeys(routes.asked(), A))
    assert (len(kept.sent), len(routes._known), routes._n_waiting) == (10, 3, 0)
    routes.told({"fed-unasked": A})
    assert len(routes._known) == 3
