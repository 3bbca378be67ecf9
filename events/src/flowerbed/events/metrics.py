"""The backbone's own Prometheus metrics. Their names are fixed; dashboards rely on them.

Labels have few values, or a scrape would grow without end: never a client, a federation or words
of somebody else's. Where a value could be anything, `Few` bounds it.
"""

from threading import Lock

from prometheus_client import Counter, Gauge

OTHER = "other"


class Few:
    """The first `most` values are labels; whatever comes later is `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = Lock()

    def __call__(self, value: str) -> str:
        with self._lock:
            if value not in self._known and len(self._known) < self._most:
                self._known.add(value)
            return value if value in self._known else OTHER


outbox_lag = Gauge("outbox_lag_events", "Events recorded and not yet relayed.", ["service"])
projection_lag = Gauge(
    "projection_lag_events", "Events that a consumer has still to handle.", ["service", "consumer"]
)
redeliveries = Counter(
    "consumer_redeliveries", "Events handed to a consumer again.", ["service", "consumer"]
)
dead_letters = Counter("dead_letters", "Events put aside as dead letters.", ["service", "consumer"])
named_lag = Gauge("flowerbed_lag", "What a service itself calls a lag.", ["service", "name"])
waiting_letters = Gauge(
    "dead_letters_waiting", "Dead letters that nobody has replayed yet.", ["service", "consumer"]
)
leads = Gauge("flowerbed_leads", "1 where this replica holds the role.", ["service", "role"])
