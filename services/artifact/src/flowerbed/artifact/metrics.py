"""The service's Prometheus metrics. Their names are fixed; dashboards rely on them."""

from prometheus_client import Counter

artifacts_written = Counter("fl_artifacts_written", "Artifacts verified and recorded.", ["kind"])
artifacts_refused = Counter(
    "fl_artifacts_refused", "Aggregates whose objects are missing or not what they should be."
)
