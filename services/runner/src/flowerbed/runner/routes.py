"""Where the spans of a federation go besides the site's own collector: as its spec says, if the
site allows it. The manifest says it, before the lease is claimed."""

from collections import OrderedDict

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from flowerbed.contracts.telemetry import Telemetry
from flowerbed.contracts.trace import trace_id
from flowerbed.events.destinations import Destinations

MOST_KNOWN = 256


class Routes(SpanProcessor):
    """Spans are told apart by their trace, which is the federation's."""

    def __init__(self, destinations: Destinations | None = None) -> None:
        self._destinations = destinations or Destinations()
        self._known: OrderedDict[int, Telemetry] = OrderedDict()

    def learn(self, federation_id: str, to: Telemetry) -> None:
        trace = int(trace_id(federation_id), 16)
        self._known[trace] = to
        self._known.move_to_end(trace)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def on_end(self, span: ReadableSpan) -> None:
        to = self._known.get(span.context.trace_id)
        if to is not None:
            self._destinations.send(to, span)

    def shutdown(self) -> None:
        self._destinations.close()
