"""A real OTLP receiver for traces, by gRPC and by HTTP, that keeps what it is sent."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]  # has no stubs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True, kw_only=True)
class Received:
    """One span. Ids are hex; `parent` is "" for a root."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    is_error: bool
    links: tuple[str, ...] = ()
    why: str = ""
    n_events: int = 0
    resource: dict[str, Any] = field(default_factory=dict)


@dataclass
class Collector:
    """`is_away`: answers 503 and UNAVAILABLE, as one that is overloaded does.

    `headers`: of each request, in lower case.
    """

    http_url: str = ""
    grpc_url: str = ""
    is_away: bool = False
    n_refused: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    _spans: list[Received] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: ExportTraceServiceRequest) -> None:
        found = list(_spans(request))
        with self._lock:
            self._spans += found

    def spans(self, federation_id: str | None = None) -> list[Received]:
        """As they came; of one federation, each once: a repeated export is the same span."""
        with self._lock:
            found = list(self._spans)
        if federation_id is None:
            return found
        mine = [one for one in found if one.attributes.get("federation_id") == federation_id]
        return list({one.span: one for one in mine}.values())


def orphans(spans: Iterable[Received]) -> list[Received]:
    """Those whose parent was never received."""
    known = list(spans)
    ids = {one.span for one in known}
    return [one for one in known if one.parent and one.parent not in ids]


def below(spans: Iterable[Received], parent: Received) -> list[Received]:
    return sorted((one for one in spans if one.parent == parent.span), key=lambda one: one.start)


@contextmanager
def collector() -> Iterator[Collector]:
    found = Collector()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    server = grpc.server(ThreadPoolExecutor(4))
    add_TraceServiceServicer_to_server(_Service(found), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    found.http_url = f"http://127.0.0.1:{http.server_port}"
    found.grpc_url = f"http://127.0.0.1:{port}"
    try:
        yield found
    finally:
        server.stop(None).wait(5)
        http.shutdown()
        http.server_close()
        thread.join(5)


def _handler(kept: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            kept.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = 503 if kept.is_away else 200 if self.path == "/v1/traces" else 404
            answer = b""
            if status == 200:
                kept.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
            else:
                kept.n_refused += 1
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            return None

    return Handler


class _Service(TraceServiceServicer):
    def __init__(self, kept: Collector) -> None:
        self._kept = kept

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self._kept.headers.append(
            {name.lower(): str(v) for name, v in context.invocation_metadata()}
        )
        if self._kept.is_away:
            self._kept.n_refused += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self._kept.take(request)
        return ExportTraceServiceResponse()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        own = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    service=own.get("service.name", ""),
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    is_error=span.status.code == 2,
                    links=tuple(link.trace_id.hex() for link in span.links),
                    why=span.status.message,
                    n_events=len(span.events),
                    resource=own,
                )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}
