"""The bridge's Prometheus metrics. Their names are fixed; dashboards rely on them."""

from prometheus_client import Counter, Gauge, Histogram

from flowerbed.events.metrics import Few

tenants = Few(50)
outcomes = Few(50)
reasons = Few(20)

aggregates = Counter("fl_aggregates", "Exchanges that ended, by how.", ["exchange", "outcome"])
aggregate_duration = Histogram(
    "fl_aggregate_duration_seconds",
    "Time spent folding an exchange's updates and storing the checkpoint.",
    ["exchange"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
updates = Counter("fl_updates", "Updates judged, by verdict.", ["exchange", "verdict"])
update_bytes = Counter("fl_update_bytes", "Bytes of accepted updates, as they travelled.", ["form"])
update_bytes_saved = Counter(
    "fl_update_bytes_saved",
    "Bytes that accepted updates have not sent, since they travelled in a form of fewer.",
    ["form"],
)
tokens = Counter("fl_tokens", "Tokens in accepted updates, as apps counted them.", ["tenant"])
tokens_per_second = Gauge(
    "fl_tokens_per_second",
    "Tokens a second in the apps of the last round, over its clients together.",
    ["tenant", "exchange"],
)
joules = Counter("fl_joules", "Energy that sites measured for accepted updates.", ["tenant"])
round_joules = Gauge(
    "fl_round_joules", "Energy that sites measured in the last round.", ["tenant", "exchange"]
)
power = Gauge(
    "fl_power_watts",
    "Power of the last round's measured sites while their apps ran, together.",
    ["tenant", "exchange"],
)
watts_per_token = Gauge(
    "fl_watts_per_token",
    "Watts for one token a second, which is joules a token, in the last round.",
    ["tenant", "exchange"],
)
unmeasured = Counter(
    "fl_updates_without_energy", "Accepted updates without a measured energy, by why.", ["reason"]
)
