"""`flowerbed app`, a spec whose app is a folder, and `flowerbed client policy`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from flowerbed.cli.choosing import node_config
from flowerbed.cli.main import app
from flowerbed.contracts.bundle import read_bundle
from flowerbed.runner.errors import BadInput
from flowerbed.runner.publishers import signer_of
from tests.support.apps import FILES, bundle, digest
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

EXAMPLE = Path("examples/quickstart")
PUSHED = {
    "sha256": "a" * 64, "size": 4821, "uri": "s3://b/k", "name": "drift", "version": "1.2.0",
    "publisher": "alice", "pushed_by": "local-token",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "drift"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def bundles(stub: StubGateway) -> list[bytes]:
    return [body for method, path, body in stub.asked if path.startswith("/apps")]


def test_flowers_own_builder_makes_the_same_bundle_each_time() -> None:
    with stub_gateway() as stub:
        stub.answer("POST /apps", PUSHED)
        for _ in range(2):
            done = run(app, "app", "push", str(EXAMPLE), url=stub.url)
            assert done.exit_code == 0, done.output
        first, second = bundles(stub)
    assert first == second
    assert read_bundle(first).client_app == "quickstart.client_app:app"
    assert done.stdout.strip() == f"fab:{'a' * 64}"
    assert "drift 1.2.0 of alice, 4821 bytes, pushed by local-token" in done.stderr


def test_a_bundle_that_is_built_already_goes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.fab"
    path.write_bytes(bundle())
    with stub_gateway() as stub:
        stub.answer("POST /apps", PUSHED)
        done = run(app, "app", "push", str(path), "--tenant", "acme", url=stub.url)
        assert done.exit_code == 0
        assert bundles(stub) == [bundle()]
        assert stub.asked[0][1] == "/apps?tenant=acme"


def test_a_publisher_makes_a_key_once_and_signs_with_it(tmp_path: Path) -> None:
    path = tmp_path / "publisher.pem"
    made, shown = (CliRunner().invoke(app, ["app", "key", str(path)]) for _ in range(2))
    assert made.exit_code == shown.exit_code == 0, made.output
    name = shown.stdout.strip()
    assert made.stdout.strip() == name and "a new key" in made.stderr and not shown.stderr
    with stub_gateway() as stub:
        stub.answer("POST /apps", PUSHED)
        done = run(app, "app", "push", str(EXAMPLE), "--sign", str(path), url=stub.url)
        assert done.exit_code == 0, done.output
        (pushed,) = bundles(stub)
        assert signer_of(read_bundle(pushed), [name]) == name
        (tmp_path / "signed.fab").write_bytes(pushed)
        for what, key in ((tmp_path / "signed.fab", path), (EXAMPLE, tmp_path / "none.pem")):
            done = run(app, "app", "push", str(what), "--sign", str(key), url=stub.url)
            assert done.exit_code == 2, done.output
        assert len(bundles(stub)) == 1


@pytest.mark.parametrize("name", ["nowhere", "empty", "x.fab"])
def test_what_is_no_flower_app_is_said_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.fab").write_bytes(b"no zip")
    with stub_gateway() as stub:
        done = run(app, "app", "push", str(tmp_path / name), url=stub.url)
        assert done.exit_code == 2 and name in done.stderr
        assert stub.asked == []


def spec_in(folder: Path, own: str) -> Path:
    document = {
        "apiVersion": "flowerbed/v1",
        "metadata": {"name": "x", "tenant": "acme"},
        "spec": {"app": own, "model_ref": {"uri": "app:drift.task:Net"}, "num_rounds": 1},
    }
    path = folder / "federation.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("own", ["./drift", "drift", "drift/"])
def test_a_spec_may_name_the_folder_and_submit_pushes_it(
    folder: Path, tmp_path: Path, own: str
) -> None:
    with stub_gateway() as stub:
        stub.answer("POST /apps", PUSHED)
        answer = {"federation_id": "fed-1", "submission_id": "k", "status_url": "/federations/f"}
        stub.answer("POST /federations", answer)
        done = run(app, "federation", "submit", str(spec_in(tmp_path, own)), url=stub.url)
        assert done.exit_code == 0, done.output
        assert f"pushed fab:{'a' * 64}: drift" in done.stderr
        (_, pushed_to, _), (_, _, sent) = stub.asked
    assert pushed_to == "/apps?tenant=acme"
    written = json.loads(sent)
    assert written["spec"]["app"] == f"fab:{'a' * 64}"
    assert written["metadata"] == {"name": "x", "tenant": "acme"}


def test_validate_builds_and_pushes_nothing(folder: Path, tmp_path: Path) -> None:
    done = run(app, "federation", "validate", str(spec_in(tmp_path, "./drift")))
    assert (done.exit_code, done.stdout.strip()) == (0, "the spec is valid")
    done = run(app, "federation", "validate", str(spec_in(tmp_path, "./elsewhere")))
    assert done.exit_code == 2 and "elsewhere" in done.stderr
    done = run(app, "federation", "validate", str(spec_in(tmp_path, "hospital")))
    assert done.exit_code == 2, "no folder of that name: the rules say what is wrong"


def test_the_apps_are_listed_and_shown() -> None:
    one = {**PUSHED, "app": "fab:aa", "tenant": "acme", "pushed_at": "2026-11-26T03:00:00Z"}
    with stub_gateway() as stub:
        stub.answer("GET /apps", {"apps": [one], "next_cursor": None})
        stub.answer(f"GET /apps/{'a' * 64}", {"apps": [one]})
        listed = run(app, "app", "list", url=stub.url).stdout
        shown = run(app, "app", "show", f"fab:{'a' * 64}", url=stub.url).stdout
        as_json = json.loads(run(app, "app", "show", "a" * 64, "-o", "json", url=stub.url).stdout)
    assert "drift" in listed and "acme" in listed
    assert "publisher  alice" in shown and "by local-token" in shown
    assert as_json == [one]


# --- policy -----------------------------------------------------------------


def policy(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["client", "policy", *arguments, "--state-dir", str(state)])


def rules(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "policy.json").read_text())
    return found


def test_a_site_says_what_may_run_there(tmp_path: Path) -> None:
    assert "none that is pushed" in policy(tmp_path, "show").stdout
    own = digest(bundle())
    assert f"fab:{own}" in policy(tmp_path, "allow", f"fab:{own}", "--tenant", "acme").stdout
    policy(tmp_path, "allow", own)
    policy(tmp_path, "set", "max-epochs=50", "max_clipping_norm=1.5")
    assert rules(tmp_path) == {
        "apps": [own], "any_app": False, "publishers": [], "builtin_apps": True,
        "tenants": ["acme"], "max_local_epochs": None, "max_epochs": 50,
        "min_noise_multiplier": None, "max_clipping_norm": 1.5, "label_entropy": True,
    }  # fmt: skip
    assert json.loads(policy(tmp_path, "show", "-o", "json").stdout) == rules(tmp_path)
    policy(tmp_path, "deny", own, "--builtin", "--tenant", "acme")
    policy(tmp_path, "set", "max_epochs=none", "label-entropy=false")
    assert rules(tmp_path)["label_entropy"] is False
    after = rules(tmp_path)
    trusted = f"ed25519:{'A' * 43}"
    assert trusted in policy(tmp_path, "allow", "--publisher", trusted).stdout
    assert rules(tmp_path)["publishers"] == [trusted]
    policy(tmp_path, "deny", "--publisher", trusted)
    assert rules(tmp_path) == after
    assert (after["apps"], after["builtin_apps"], after["tenants"]) == ([], False, [])
    assert after["max_epochs"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["allow"], ["allow", "quickstart"], ["deny", "0" * 64], ["deny", "--tenant", "acme"],
        ["set", "epochs=3"], ["set", "max_epochs=0"], ["set", "max_epochs=many"],
        ["set", "max_epochs"], ["set", "label_entropy=1"],
        ["allow", "--tenant", "a b"], ["allow", "--publisher", "alice"],
    ],
)  # fmt: skip
def test_what_cannot_be_a_rule_changes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    done = policy(tmp_path, *arguments)
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "policy.json").exists()


def test_the_node_config_is_written_as_flower_has_it() -> None:
    assert node_config("partition-id=0 num-partitions=2 lr=0.5 gpu=false name='a b'") == {
        "partition-id": 0, "num-partitions": 2, "lr": 0.5, "gpu": False, "name": "a b",
    }  # fmt: skip
    for wrong in ("partition-id", "=3", "data-path=/x", "'open"):
        with pytest.raises(BadInput, match="--node-config"):
            node_config(wrong)
