"""Spans leave over OTLP/HTTP when an endpoint is set, and only then."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flowerbed.events.telemetry import set_up_tracing

PROGRAM = """
from flowerbed.events.context import Context
from flowerbed.events.telemetry import flush_traces, set_up_tracing, span
assert set_up_tracing("lease", {endpoint!r})
with span("water", Context(tenant="roses", correlation_id="fed-1"), round_num=3):
    pass
flush_traces()
"""


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A place to export to; what came in, with its path."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return None

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("by_environment", [False, True])
async def test_spans_are_exported(by_environment: bool) -> None:
    with receiver() as (url, got):
        environment = dict(os.environ)
        if by_environment:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = url
        program = PROGRAM.format(endpoint=None if by_environment else url)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environment
        )
        assert await asyncio.wait_for(process.wait(), 60) == 0
    ((path, body),) = got
    assert path == "/v1/traces"
    exported = ExportTraceServiceRequest.FromString(body).resource_spans[0]
    resource = {one.key: one.value.string_value for one in exported.resource.attributes}
    assert resource["service.name"] == "flowerbed-lease"
    sent = exported.scope_spans[0].spans[0]
    attributes = {one.key: one.value for one in sent.attributes}
    assert sent.name == "water"
    assert attributes["federation_id"].string_value == "fed-1"
    assert attributes["round_num"].int_value == 3


def test_nothing_is_set_up_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not set_up_tracing("lease", None)
