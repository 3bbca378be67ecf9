"""This site's spans of the federation's trace, exported by OTLP where an endpoint is set.

    work (the control plane's) ── download, train ── epoch, epoch, …, upload, report

Only the agent exports; its workers hand their spans to it with the result. A collector that is
away costs nothing but the spans. Without an endpoint no SDK is loaded.

A federation may name a collector of its own. It gets spans of that federation, and only where
the site allows its origin.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags
from pydantic import ValidationError

from flowerbed.contracts.signed import Claims, Manifest, WorkOrder
from flowerbed.contracts.telemetry import Telemetry
from flowerbed.contracts.trace import of_federation, of_work
from flowerbed.runner.pipe import SpanLine

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from flowerbed.runner.routes import Routes

PROTOCOLS = ("http/protobuf", "grpc")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DELAY_MILLIS = 500
TIMEOUT_SECONDS = 5.0
FLUSH_SECONDS = 2.0
SAY_AGAIN = 3600.0
MOST_REFUSED = 100

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

logger = logging.getLogger(__name__)


class Spans:
    """`tracer`: None, and nothing is recorded, where nothing is exported.

    `routes`, `allowed`: to the collectors of federations, where their origins are allowed.
    """

    def __init__(
        self,
        tracer: trace.Tracer | None = None,
        routes: "Routes | None" = None,
        allowed: Collection[str] = (),
    ) -> None:
        self._tracer = tracer
        self._routes = routes
        self._allowed = allowed
        self._refused: set[str] = set()

    @property
    def is_on(self) -> bool:
        return self._tracer is not None

    def learn(self, manifest: Manifest) -> None:
        """Where the federation wants its spans. A site that does not allow it says so once, and
        works all the same."""
        if manifest.otlp_endpoint is None:
            return
        told = {"otlp_endpoint": manifest.otlp_endpoint, "otlp_protocol": manifest.otlp_protocol}
        try:
            to = Telemetry.model_validate(told)
        except ValidationError:
            self._refuse("an address that is none")
            return
        if self._routes is not None and to.address.origin in self._allowed:
            self._routes.learn(manifest.federation_id, to)
        else:
            self._refuse(to.address.origin)

    def _refuse(self, origin: str) -> None:
        if origin not in self._refused and len(self._refused) < MOST_REFUSED:
            self._refused.add(origin)
            logger.warning(
                "a federation asks for its spans at %s: none is sent there, for this site does"
                " not allow it (client start --otlp-allow)", origin,
            )  # fmt: skip

    @contextmanager
    def of_work(self, name: str, order: WorkOrder) -> Iterator[Span]:
        """A part of the work; what it raises is the span's error."""
        about = {
            "round_num": order.round_number, "attempt": order.attempt, "exchange": order.exchange,
        }  # fmt: skip
        with self._span(name, order, _told(order), about) as span:
            yield span

    @contextmanager
    def of_lease(self, name: str, claims: Claims) -> Iterator[Span]:
        about = {"lease_epoch": claims.lease_epoch}
        with self._span(name, claims, of_federation(claims.federation_id), about) as span:
            yield span

    def hand_in(self, parent: Span, lines: Sequence[SpanLine]) -> None:
        """What a worker recorded, below the span of its run."""
        if self._tracer is None:
            return
        above: list[Span] = [parent]
        inherited = getattr(parent, "attributes", None) or {}
        for line in lines:
            place = line.parent + 1 if line.parent is not None else 0
            span = self._tracer.start_span(
                line.name,
                context=trace.set_span_in_context(above[place] if place < len(above) else parent),
                attributes={**inherited, **line.attributes},
                start_time=line.start,
            )
            above.append(span)
        for span, line in zip(above[1:], lines, strict=True):
            span.end(line.end)

    @contextmanager
    def _span(
        self, name: str, claims: Claims, parent: str, about: Mapping[str, Any]
    ) -> Iterator[Span]:
        if self._tracer is None:
            yield trace.INVALID_SPAN
            return
        attributes = {
            "tenant": claims.tenant, "federation_id": claims.federation_id,
            "client_id": claims.client_id, **about,
        }  # fmt: skip
        span = self._tracer.start_span(name, context=_context(parent), attributes=attributes)
        try:
            yield span
        except BaseException as error:
            # Not its words: they may name what stays at the site.
            code = str(getattr(error, "code", type(error).__name__))
            span.set_status(Status(StatusCode.ERROR, code))
            raise
        finally:
            span.end()


def _told(order: WorkOrder) -> str:
    """As the order says; a control plane of the first release says nothing."""
    told = order.traceparent or ""
    return told if _TRACEPARENT.fullmatch(told) else of_work(order.federation_id, order.work_id)


def _context(traceparent: str) -> Context:
    _, trace_id, span_id, flags = traceparent.split("-")
    parent = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


@contextmanager
def exported_spans(
    client_id: str,
    endpoint: str | None,
    protocol: str | None = None,
    allowed: Collection[str] = (),
) -> Iterator[Spans]:
    """Spans that leave for the collector, and for those of federations whose origins are
    `allowed`; what is left is sent at the end, for a moment."""
    has_own = endpoint is not None or any(os.environ.get(name) for name in ENDPOINTS)
    if not has_own and not allowed:
        yield Spans()
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    from flowerbed.runner.routes import Routes

    _say_seldom()
    named = Resource.create({"service.name": "flowerbed-runner", "service.instance.id": client_id})
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    routes = Routes()
    processors: list[SpanProcessor] = [routes]
    if has_own:
        processors.append(_batches(endpoint, protocol))
    for one in processors:
        provider.add_span_processor(one)
    try:
        yield Spans(provider.get_tracer("flowerbed.runner"), routes, allowed)
    finally:
        sending = [threading.Thread(target=one.shutdown, daemon=True) for one in processors]
        for thread in sending:
            thread.start()
        end = time.monotonic() + FLUSH_SECONDS
        for thread in sending:
            thread.join(max(0.0, end - time.monotonic()))


def _batches(endpoint: str | None, protocol: str | None) -> "SpanProcessor":
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MILLIS
    return BatchSpanProcessor(_exporter(endpoint, protocol), schedule_delay_millis=delay)


def _exporter(endpoint: str | None, protocol: str | None) -> "SpanExporter":
    named = [protocol, *(os.environ.get(name) for name in PROTOCOL_VARIABLES), PROTOCOLS[0]]
    chosen = next(name for name in named if name)
    if chosen == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(endpoint=endpoint, timeout=TIMEOUT_SECONDS)
    if chosen != PROTOCOLS[0]:
        logger.warning("the OTLP protocol %r is not known: %s", chosen, PROTOCOLS[0])
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    path = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return HttpExporter(endpoint=path, timeout=TIMEOUT_SECONDS)


class _Seldom(logging.Handler):
    """That the collector is away is said once an hour, in one line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + SAY_AGAIN
            logger.warning("traces do not reach the collector: %s", record.getMessage()[:200])


def _say_seldom() -> None:
    sdk = logging.getLogger("opentelemetry")
    if not sdk.handlers:
        sdk.addHandler(_Seldom())
        sdk.propagate = False
