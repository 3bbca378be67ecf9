"""The service's Prometheus metrics. Their names are fixed; dashboards rely on them."""

from prometheus_client import Counter, Histogram

artifacts_written = Counter("fl_artifacts_written", "Artifacts verified and recorded.", ["kind"])
artifacts_refused = Counter(
    "fl_artifacts_refused", "Aggregates whose objects are missing or not what they should be."
)
availability = Histogram(
    "fl_artifact_availability_seconds",
    "From the aggregate that names an artifact to the artifact's being recorded",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
