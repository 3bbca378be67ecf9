"""Rules and dashboards ask only for what is served, in words that Prometheus understands."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.observability.__main__ import FOLDER, files
from scripts.observability.expressions import asked, of_dashboards, of_rules
from scripts.observability.objectives import RULES
from scripts.observability.rules import Record
from scripts.observability.served import served

DASHBOARDS = FOLDER / "grafana" / "dashboards"
ALERTS = FOLDER / "alerts.yaml"
EXPRESSIONS = [*of_rules(ALERTS), *of_dashboards(DASHBOARDS)]
RECORDED = {rule.name: frozenset(rule.labels) for rule in RULES if isinstance(rule, Record)}
ROOT = FOLDER.parents[1]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian: apt-get install prometheus)",
)


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_what_is_checked_in_is_what_the_code_makes() -> None:
    stale = [path.name for path, content in files().items() if path.read_text() != content]
    assert stale == []
    assert set(DASHBOARDS.iterdir()) <= set(files())


def test_every_metric_is_served_with_the_labels_that_are_asked_for() -> None:
    known = served() | RECORDED
    unknown = {
        (where, one.metric, tuple(sorted(one.labels - known.get(one.metric, frozenset()))))
        for where, expr in EXPRESSIONS
        for one in asked(expr)
        if one.metric not in known or not one.labels <= known[one.metric]
    }
    assert unknown == set()
    assert len(EXPRESSIONS) > 80


def test_a_metric_that_nobody_serves_and_a_wrong_label_are_found() -> None:
    (one,) = asked('sum by (colour) (rate(fl_roses_total{kind="red"}[5m]))')
    assert (one.metric, one.labels) == ("fl_roses_total", frozenset(("colour", "kind")))
    assert one.metric not in served()
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        asked("sum by (tenant (up)")


def test_every_alert_has_words_and_a_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.M)
    alerts = [
        rule
        for group in yaml.safe_load(ALERTS.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {rule["alert"] for rule in alerts} == set(headings)
    for rule in alerts:
        words = rule["annotations"]
        assert words["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert 10 < len(words["summary"]) < 90 and len(words["description"]) > 60, rule["alert"]
        said = " ".join(words.values())
        asked_for = set(re.findall(r"\$labels\.(\w+)", said))
        labels = {label for one in asked(rule["expr"]) for label in one.labels}
        assert asked_for <= labels | served()["up"], rule["alert"]


@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_grafanas_own_sdk_reads_a_dashboard_back_as_it_is(path: Path) -> None:
    register_default_plugins()
    board = Dashboard.from_json(json.loads(path.read_text()))
    assert JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n" == path.read_text()
    assert "null" not in re.findall(r'"options": (\w+)', path.read_text())


def test_every_panel_says_what_to_make_of_it() -> None:
    for path in DASHBOARDS.glob("*.json"):
        board = json.loads(path.read_text())
        assert board["uid"] == path.stem and board["description"]
        shown = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len(shown) >= 3
        for panel in shown:
            assert panel["title"], path.stem
            if panel["type"] != "text":
                assert panel["description"] and panel["targets"], panel["title"]


def test_a_dashboard_says_why_no_privacy_budget_is_counted() -> None:
    board = json.loads((DASHBOARDS / "flowerbed-privacy.json").read_text())
    (said,) = [panel for panel in board["panels"] if panel["type"] == "text"]
    assert "these panels are empty" in said["options"]["content"]
    asked = [expr for _, expr in EXPRESSIONS if "epsilon" in expr]
    assert asked and all("fl_privacy_epsilon_limit" in expr for expr in asked)


@needs_promtool
def test_promtool_takes_the_rules_and_every_expression_of_a_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expr}
        for number, (_, expr) in enumerate(of_dashboards(DASHBOARDS))
    ]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    done = promtool("check", "rules", ALERTS, panels)

    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{len(rules)} rules found" in done.stdout
    panels.write_text(panels.read_text().replace("sum(", "summ(", 1))
    assert promtool("check", "rules", panels).returncode != 0


@needs_promtool
def test_every_alert_fires_where_it_must_and_not_where_it_must_not() -> None:
    done = promtool("test", "rules", FOLDER / "alerts_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (FOLDER / "alerts_test.yaml").read_text()
    named = {where for where, _ in of_rules(ALERTS) if where.startswith("Flowerbed")}
    assert [name for name in named if name not in tested] == []


@needs_promtool
def test_promtool_takes_the_configuration_for_containers(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus" / "prometheus.yml").read_text()
    written = tmp_path / "prometheus.yml"
    written.write_text(text.replace("/etc/prometheus/alerts.yaml", str(ALERTS)))
    done = promtool("check", "config", written)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.skipif(
    shutil.which("amtool") is None,
    reason="amtool is not installed (Debian: apt-get install prometheus-alertmanager)",
)
def test_amtool_takes_the_example_of_whom_to_tell() -> None:
    example = FOLDER / "alertmanager" / "alertmanager.yml"
    done = subprocess.run(
        ["amtool", "check-config", example], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_example_keeps_quiet_is_alerts_that_exist() -> None:
    text = (FOLDER / "alertmanager" / "alertmanager.yml").read_text()
    alerts = {where for where, _ in of_rules(ALERTS) if where.startswith("Flowerbed")}
    for rule in yaml.safe_load(text)["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            pattern = matcher.split('"')[1]
            assert [name for name in alerts if re.fullmatch(pattern, name)], matcher


def test_every_file_that_containers_are_given_is_yaml() -> None:
    found = [path for path in FOLDER.rglob("*") if path.suffix in (".yml", ".yaml")]
    assert len(found) >= 8
    for path in found:
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
