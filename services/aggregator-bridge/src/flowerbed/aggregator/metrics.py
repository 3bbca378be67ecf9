"""The bridge's Prometheus metrics. Their names are fixed; dashboards rely on them."""

from prometheus_client import Counter, Histogram

aggregates = Counter("fl_aggregates", "Exchanges that ended, by how.", ["exchange", "outcome"])
aggregate_duration = Histogram(
    "fl_aggregate_duration_seconds",
    "Time spent folding an exchange's updates and storing the checkpoint.",
    ["exchange"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
updates = Counter("fl_updates", "Updates judged, by verdict.", ["exchange", "verdict"])
