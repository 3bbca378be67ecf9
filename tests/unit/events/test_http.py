"""Problems, traces and log lines, without any server."""

import json
import logging

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import trace

from flowerbed.contracts.trace import of_federation, of_round
from flowerbed.events.context import Context
from flowerbed.events.errors import Rejected
from flowerbed.events.http import new_app
from flowerbed.events.logs import set_up_logging
from flowerbed.events.serving import Listener, tcp_socket
from flowerbed.events.telemetry import current_traceparent, span, trace_context

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class TooMany(Rejected):
    code = "too-many"
    status = 422


def client(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://garden")


async def test_rejection_names_every_broken_rule() -> None:
    app = new_app("garden")

    @app.get("/plant")
    async def plant() -> None:
        raise TooMany("2 rules are broken", errors=[{"path": "rows", "value": 9, "allowed": "1-3"}])

    async with client(app) as http:
        answer = await http.get("/plant")
    assert answer.status_code == 422
    assert answer.json() == {
        "type": "about:blank",
        "title": answer.json()["title"],
        "status": 422,
        "code": "too-many",
        "detail": "2 rules are broken",
        "errors": [{"path": "rows", "value": 9, "allowed": "1-3"}],
    }


async def test_request_joins_the_callers_trace() -> None:
    app = new_app("garden")

    @app.get("/where")
    async def where() -> dict[str, str | None]:
        return {"traceparent": current_traceparent()}

    async with client(app) as http:
        answer = await http.get("/where", headers={"traceparent": TRACEPARENT})
        assert answer.json()["traceparent"].split("-")[1] == TRACE
        answer = await http.get("/where", headers={"traceparent": "nonsense"})
        assert answer.json()["traceparent"] is None


async def test_answer_that_breaks_half_way_is_not_answered_twice() -> None:
    app = new_app("garden")

    async def half() -> object:
        yield b"half"
        raise RuntimeError("no more")

    @app.get("/half")
    async def stream() -> StreamingResponse:
        return StreamingResponse(half())  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="no more"):
        async with client(app) as http:
            await http.get("/half")


def test_span_hangs_on_its_federation_whatever_led_to_it() -> None:
    context = Context(tenant="roses", correlation_id="fed-1", traceparent=TRACEPARENT)
    with span("water", context, stream="bed-1"):
        assert current_traceparent() == of_federation("fed-1")
        with span("again", Context(tenant="roses")):
            assert current_traceparent() == of_federation("fed-1")
        with span("of a round", context, under=of_round("fed-1", 1, 1)):
            assert current_traceparent() == of_round("fed-1", 1, 1)
    with span("of none", Context(tenant="roses", traceparent=TRACEPARENT)):
        assert (current_traceparent() or "").split("-")[1] == TRACE
    assert current_traceparent() is None
    assert trace_context(None) is None


def test_log_line_is_json_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:], logging.root.level
    try:
        set_up_logging("lease", "info")
        logger = logging.getLogger("flowerbed.test")
        with trace.use_span(trace.get_current_span(trace_context(TRACEPARENT))):
            logger.info("watered %s", "bed-1", extra={"federation_id": "fed-1"})
        logger.info("no trace")
        with span("water", Context(tenant="roses", correlation_id="fed-2")):
            logger.info("in a span")
        logger.info("after it")
        logger.debug("not said")
    finally:
        logging.root.handlers[:], logging.root.level = before
    first, second, third, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["message"] == "watered bed-1"
    assert (first["service"], first["level"], first["logger"]) == (
        "lease", "INFO", "flowerbed.test",
    )  # fmt: skip
    assert (first["trace_id"], first["federation_id"]) == (TRACE, "fed-1")
    assert "trace_id" not in second and "federation_id" not in second
    assert third["federation_id"] == "fed-2" and "federation_id" not in last


def test_websockets_are_loaded_only_for_an_app_that_has_some() -> None:
    plain, talking = FastAPI(), FastAPI()

    @talking.websocket("/live")
    async def live() -> None:
        return None

    for app, expected in ((plain, "none"), (talking, "auto")):
        with tcp_socket("127.0.0.1", 0) as listening:
            assert Listener(app, listening).config.ws == expected
