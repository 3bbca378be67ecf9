"""What docs/operations.md says of the metrics is what the services expose."""

import re
from pathlib import Path

from scripts.metric_catalogue import catalogue

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
FIXED = {
    "fl_clients_joined_total", "fl_rounds_started_total", "fl_rounds_completed_total",
    "fl_aggregates_total", "fl_artifacts_written_total", "fl_round_duration_seconds",
    "fl_aggregate_duration_seconds", "fl_tokens_per_second", "fl_power_watts",
    "fl_watts_per_token", "outbox_lag_events", "projection_lag_events",
    "consumer_redeliveries_total", "dead_letters_total",
}  # fmt: skip
"""Names that dashboards everywhere rely on."""


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels by name, from the table of the section on metrics."""
    section = OPERATIONS.read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and (name := re.fullmatch(r"`(\w+)`", cells[0])):
            found[name[1]] = cells[1], tuple(re.findall(r"`(\w+)`", cells[2]))
    return found


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    exposed = {one.name: (one.type, one.labels) for one in catalogue()}
    assert exposed.keys() >= FIXED
    assert documented() == exposed
