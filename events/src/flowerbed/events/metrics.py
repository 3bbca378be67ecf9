"""The backbone's own Prometheus metrics. Their names are fixed; dashboards rely on them."""

from prometheus_client import Counter, Gauge

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
