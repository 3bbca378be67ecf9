"""Who watches the stack: where it is not installed nothing starts; else it knows every replica."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from typer.main import get_command

from flowerbed.cli import main as cli
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.leftovers import stop_groups
from flowerbed.embedded.observers import observer_specs, scrape_config
from flowerbed.embedded.record import ComponentRecord
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import Shape, from_json, read_shape, to_json, wanted_shape


def installed(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    def which(name: str) -> str | None:
        return f"/usr/bin/{name}" if name in programs else None

    monkeypatch.setattr("shutil.which", which)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup.prepare(Layout(tmp_path / "state"), Shape(replicas=2, observability=True))


def test_without_prometheus_it_says_how_to_get_it_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch)
    state = tmp_path / "state"
    found = CliRunner().invoke(
        get_command(cli.app), ["up", "--observability", "--state-dir", str(state)]
    )
    assert found.exit_code == 2
    assert "apt-get install prometheus prometheus-alertmanager" in found.output
    assert not Layout(state).record.exists() and not Layout(state).shape.exists()


def test_the_wish_is_kept_until_another_is_said(setup: Setup) -> None:
    assert read_shape(setup.layout) == setup.shape == from_json(to_json(setup.shape))
    assert wanted_shape(setup.layout).observability
    assert not wanted_shape(setup.layout, observability=False).observability


def test_a_shape_without_it_is_one_that_an_earlier_release_can_read(tmp_path: Path) -> None:
    assert set(json.loads(to_json(Shape(replicas=2)))) == {"replicas", "nats_nodes", "links"}


def test_there_is_a_target_a_replica_at_the_port_that_it_has(setup: Setup) -> None:
    found: Any = scrape_config(setup)
    (job,) = found["scrape_configs"]
    targets = {
        one["labels"]["replica"]: (one["targets"], one["labels"]["service"])
        for one in job["static_configs"]
    }
    assert len(targets) == 2 * len(SERVICES)
    assert targets["lease-2"] == ([f"127.0.0.1:{setup.ports['lease-2']}"], "lease")


def test_both_listen_on_this_machine_alone(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "prometheus", "prometheus-alertmanager")
    found = {spec.name: spec.argv for spec in observer_specs(setup)}
    assert set(found) == {"prometheus", "alertmanager"}
    for name, argv in found.items():
        assert f"--web.listen-address=127.0.0.1:{setup.ports[name]}" in argv
    assert "--cluster.listen-address=" in found["alertmanager"]


def test_prometheus_comes_alone_where_there_is_no_alertmanager(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "prometheus")
    assert [spec.name for spec in observer_specs(setup)] == ["prometheus"]
    assert scrape_config(setup)["alerting"] == {"alertmanagers": []}


def test_the_operators_own_file_tells_alertmanager_whom_to_tell(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "prometheus", "prometheus-alertmanager")
    own = setup.layout.secrets / "alertmanager.yml"
    own.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    alertmanager, _ = observer_specs(setup)
    assert f"--config.file={own}" in alertmanager.argv


def test_who_watches_ends_after_the_services_and_before_the_stores() -> None:
    names = ("prometheus", "postgres", "lease", "alertmanager", "caddy")
    records = tuple(
        ComponentRecord(
            name=name,
            kind="service" if name == "lease" else "server",
            state="ready",
            address="",
        )
        for name in names
    )
    groups = [{item.name for item in group} for group in stop_groups(records)]
    assert groups == [{"lease"}, {"prometheus", "alertmanager"}, {"caddy"}, {"postgres"}]
