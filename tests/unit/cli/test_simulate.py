"""`flowerbed simulate`: the spec as it is, with virtual clients."""

import json
from pathlib import Path

import pytest
import yaml

from flowerbed.cli.main import app
from tests.unit.cli.federation_views import a_federation
from tests.unit.cli.gateway_stub import run, stub_gateway

SPEC = {
    "apiVersion": "flowerbed/v1",
    "metadata": {"name": "demo"},
    "spec": {"app": "builtin:synthetic", "model_ref": {"uri": "builtin:synthetic"}},
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    return path


def test_nobody_says_how_many_clients(spec: Path) -> None:
    with stub_gateway() as stub:
        done = run(app, "simulate", str(spec), url=stub.url)
        assert done.exit_code == 2
        assert "--clients N" in done.stderr
        assert stub.asked == []


@pytest.mark.parametrize(("status", "exit_code"), [("completed", 0), ("failed", 1)])
def test_the_spec_is_submitted_with_virtual_clients_and_followed(
    spec: Path, status: str, exit_code: int
) -> None:
    with stub_gateway() as stub:
        federation = a_federation(status=status)
        stub.answer("POST /federations", {"federation_id": federation["federation_id"]})
        stub.answer(f"GET /federations/{federation['federation_id']}", federation)
        arguments = ("--clients", "100", "--data", "/data", "--ray-address", "10.0.0.1:6379")
        done = run(app, "simulate", str(spec), *arguments, "-o", "json", url=stub.url)
        assert done.exit_code == exit_code, done.output
        sent = json.loads(next(body for method, _, body in stub.asked if method == "POST"))
    assert sent["spec"].pop("simulation") == {
        "clients": 100, "data": "/data", "ray_address": "10.0.0.1:6379",
    }  # fmt: skip
    assert sent["spec"].pop("runtime") == "simulation"
    assert sent == SPEC


def test_what_the_spec_says_itself_holds_where_nothing_else_is_said(tmp_path: Path) -> None:
    from flowerbed.cli.simulate import simulated

    written = {**SPEC, "spec": {"simulation": {"clients": 7, "cpus_per_client": 0.5}}}
    found = json.loads(simulated(json.dumps(written).encode(), {"clients": 9}))
    assert found["spec"]["simulation"] == {"clients": 9, "cpus_per_client": 0.5}
    assert found["spec"]["runtime"] == "simulation"


def test_a_spec_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("{")
    done = run(app, "simulate", str(path), "--clients", "2", url="http://127.0.0.1:1")
    assert done.exit_code == 2
    assert "the spec cannot be read" in done.stderr
