"""Senders to the collectors that specs name: few at a time, each with a thread and a queue.

Whoever submits a spec chooses the collector. So nothing of the operator's own goes along: none of
the headers that `OTEL_EXPORTER_OTLP_HEADERS` sets, no client certificate, no password of a netrc,
no resource attributes, no words and stack traces of errors; and no redirect is followed. Lent to
the agent at a site.
"""

import logging
import math
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from flowerbed.contracts.telemetry import Address, Telemetry

logger = logging.getLogger(__name__)

MOST = 16
"""Collectors at one time. Spans for a further one are dropped while all of these are in use."""
QUEUE_SIZE = 2048
"""Spans that wait for a collector that is away."""
DELAY_MILLIS = 500
TIMEOUT_SECONDS = 5.0
BUSY_SECONDS = 30.0
"""A sender that was used within these is in use."""
IDLE_SECONDS = 600.0
"""A sender that was not used for so long is closed."""

_SENT = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length",
     "content-type", "host", "user-agent"}
)  # fmt: skip
_SAID = ("service.name", "service.instance.id")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
"""Of an error; anything else is words."""
_TRUSTED = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")


def bare_exporter(to: Telemetry) -> SpanExporter:
    """To a collector that the operator allows and did not choose."""
    is_grpc = to.otlp_protocol == "grpc"
    return BareExporter(_by_grpc(to.address) if is_grpc else _by_http(to.address))


class BareExporter(SpanExporter):
    """Hands on what a span says of its federation, and nothing of the process beyond its name."""

    def __init__(self, following: SpanExporter) -> None:
        self.following = following

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.following.export([_bare(span) for span in spans])

    def shutdown(self) -> None:
        self.following.shutdown()


def _bare(span: ReadableSpan) -> ReadableSpan:
    """Events are left out: they hold the words of errors."""
    own = {name: span.resource.attributes.get(name) for name in _SAID}
    code = span.status.description
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=Resource({name: value for name, value in own.items() if value is not None}),
        attributes=span.attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, code if code and _CODE.fullmatch(code) else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _by_http(address: Address) -> SpanExporter:
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    def bare(request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Takes the place of a netrc, and sees the request as it would leave."""
        for name in [*request.headers]:
            if name.lower() not in _SENT:
                del request.headers[name]
        return request

    session = requests.Session()
    session.auth = bare
    url = f"{address.url}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, timeout=TIMEOUT_SECONDS, session=session)
    session.cert = None  # which the exporter may have set
    return exporter


def _by_grpc(address: Address) -> SpanExporter:
    import grpc  # type: ignore[import-untyped]  # has no stubs
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    is_plain = address.scheme == "http"
    return OTLPSpanExporter(
        endpoint=address.origin,
        insecure=is_plain,
        credentials=None if is_plain else grpc.ssl_channel_credentials(_trusted()),
        headers=(("flowerbed", "spec"),),  # with none at all, it would take the variable's
        timeout=TIMEOUT_SECONDS,
    )


def _trusted() -> bytes | None:
    """The certificates by which the operator has collectors known; None are the usual ones."""
    path = next((os.environ[name] for name in _TRUSTED if os.environ.get(name)), None)
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


@dataclass(slots=True)
class _Sender:
    batches: BatchSpanProcessor
    used_at: float


class Destinations:
    """Hands spans to senders, opens them when they are needed and closes them when not.

    Nothing here waits for a collector.
    """

    def __init__(
        self,
        most: int = MOST,
        make: Callable[[Telemetry], SpanExporter] = bare_exporter,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._make = make
        self._now = now
        self._senders: OrderedDict[Telemetry, _Sender] = OrderedDict()
        self._lock = threading.Lock()
        self._quiet_until = -math.inf
        self._timer = threading.Timer(IDLE_SECONDS, self.close_idle)

    @property
    def n_open(self) -> int:
        return len(self._senders)

    def send(self, to: Telemetry, span: ReadableSpan) -> None:
        """At some later time; dropped if there is no room."""
        with self._lock:
            sender = self._senders.get(to) or self._opened(to)
            if sender is None:
                return
            sender.used_at = self._now()
            self._senders.move_to_end(to)
        sender.batches.on_end(span)

    def close_idle(self) -> None:
        """Done now and then by a timer, for as long as there are any."""
        with self._lock:
            while self._senders and self._idle_seconds() > IDLE_SECONDS:
                self._close_oldest()
            self._watch()

    def close(self) -> None:
        """Send what is left, to all at once; takes as long as the slowest of them."""
        with self._lock:
            self._timer.cancel()
            closing = [self._close_oldest() for _ in range(len(self._senders))]
        for thread in closing:
            thread.join()

    def _opened(self, to: Telemetry) -> _Sender | None:
        if self._now() < self._quiet_until:
            return None
        if len(self._senders) >= self._most:
            if self._idle_seconds() < BUSY_SECONDS:
                self._quiet_until = self._now() + BUSY_SECONDS
                logger.warning("spans for more than %d collectors are dropped", self._most)
                return None
            self._close_oldest()
        try:
            exporter = self._make(to)
        except Exception:  # whatever a library cannot do with it, work goes on without these spans
            self._quiet_until = self._now() + BUSY_SECONDS
            logger.exception("no spans can be sent to %s", to.address.origin)
            return None
        batches = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SIZE,
            max_export_batch_size=QUEUE_SIZE // 4,
            schedule_delay_millis=DELAY_MILLIS,
        )
        self._senders[to] = _Sender(batches, self._now())
        if len(self._senders) == 1:
            self._watch()
        return self._senders[to]

    def _watch(self) -> None:
        self._timer.cancel()
        if self._senders:
            self._timer = threading.Timer(IDLE_SECONDS / 2, self.close_idle)
            self._timer.daemon = True
            self._timer.start()

    def _idle_seconds(self) -> float:
        """Of the one that was not used for the longest time."""
        return self._now() - next(iter(self._senders.values())).used_at

    def _close_oldest(self) -> threading.Thread:
        _, sender = self._senders.popitem(last=False)
        closing = threading.Thread(target=sender.batches.shutdown, daemon=True)
        closing.start()
        return closing
