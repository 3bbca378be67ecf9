"""Which federation's spans go to a collector of its spec: a span processor that looks it up.

    span ends ── its federation is known ──> the spec's collector, or nowhere
        │
        └────── is not known yet ──> waits ── looked up in the service's own tables ──┘

Looked up, not told: so it holds after a restart, and in whichever replica a federation is handled.
The event loop looks up; spans end in any thread.
"""

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from pydantic import ValidationError

from flowerbed.contracts.telemetry import Telemetry
from flowerbed.events.database import Database
from flowerbed.events.destinations import Destinations

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
PATIENCE = 60.0
"""Seconds that spans wait for the service to hear of their federation."""
MOST_WAITING = 4096
MOST_KNOWN = 4096


@dataclass(slots=True)
class _Waiting:
    since: float
    trace: int
    spans: list[ReadableSpan] = field(default_factory=list)


class Routes(SpanProcessor):
    """`allowed`: the origins that this process may send to, whatever a spec says.

    Spans are told apart by their trace, which is the federation's.
    """

    def __init__(
        self,
        allowed: Collection[str],
        destinations: Destinations | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.destinations = destinations or Destinations()
        self._allowed = allowed
        self._now = now
        self._known: OrderedDict[int, tuple[Telemetry | None, float]] = OrderedDict()
        self._waiting: dict[str, _Waiting] = {}
        self._n_waiting = 0
        self._lock = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            to, until = self._known.get(span.context.trace_id, (None, -math.inf))
            if until < self._now():
                self._wait(span)
                return
            self._known.move_to_end(span.context.trace_id)
        if to is not None:
            self.destinations.send(to, span)

    def asked(self) -> list[str]:
        """The federations that are to be looked up. Who has waited too long waits no more."""
        with self._lock:
            late = self._now() - PATIENCE
            for federation_id, waiting in [*self._waiting.items()]:
                if waiting.since < late:
                    self._settle(federation_id, None, self._now() + PATIENCE)
            return list(self._waiting)

    def told(self, found: Mapping[str, Telemetry | None]) -> None:
        """Where the spans of federations go; None is nowhere."""
        ready: list[tuple[Telemetry, list[ReadableSpan]]] = []
        for federation_id, wanted in found.items():
            to = self._permitted(federation_id, wanted)
            with self._lock:
                spans = self._settle(federation_id, to, math.inf)
            if to is not None:
                ready.append((to, spans))
        for to, spans in ready:
            for span in spans:
                self.destinations.send(to, span)

    def shutdown(self) -> None:
        self.destinations.close()

    def _permitted(self, federation_id: str, wanted: Telemetry | None) -> Telemetry | None:
        if wanted is None or wanted.address.origin in self._allowed:
            return wanted
        logger.warning(
            "no spans of %s are sent to %s: otlp_allowed does not name it",
            federation_id, wanted.address.origin, extra={"federation_id": federation_id},
        )  # fmt: skip
        return None

    def _wait(self, span: ReadableSpan) -> None:
        federation_id = (span.attributes or {}).get("federation_id")
        if not isinstance(federation_id, str) or self._n_waiting >= MOST_WAITING:
            return
        trace = span.context.trace_id
        waiting = self._waiting.setdefault(federation_id, _Waiting(self._now(), trace))
        waiting.spans.append(span)
        self._n_waiting += 1

    def _settle(self, federation_id: str, to: Telemetry | None, until: float) -> list[ReadableSpan]:
        waiting = self._waiting.pop(federation_id, None)
        if waiting is None:
            return []
        self._n_waiting -= len(waiting.spans)
        self._known[waiting.trace] = (to, until)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return waiting.spans


async def keep_looking_up(database: Database, routes: Routes, query: str) -> None:
    """`query`: of federations ($1), `federation_id` and `telemetry`, null if its spec has none."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if asked := routes.asked():
            async with database.read_all() as connection:
                rows = await connection.fetch(query, asked)
            found = {row["federation_id"]: _telemetry(row["telemetry"]) for row in rows}
            # In a thread: the first sender loads its library.
            await asyncio.to_thread(routes.told, found)


def _telemetry(written: str | None) -> Telemetry | None:
    if written is None or written == "null":
        return None
    try:
        return Telemetry.model_validate_json(written)
    except ValidationError:
        logger.warning("a spec's telemetry cannot be read")
        return None
