"""A Flower app that knows nothing of us is pushed and trained by real sites, which have a say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from flowerbed.cli.main import app as flowerbed
from tests.support.field import Field, Site, until

EXAMPLE = Path("examples/quickstart.yaml")


def run(field: Field, *arguments: str) -> Result:
    environment = {
        "FLOWERBED_URL": field.stack.gateway_url,
        "FLOWERBED_TOKEN": field.stack.api_token,
    }
    found = CliRunner().invoke(flowerbed, list(arguments), env={**environment, "COLUMNS": "300"})
    assert found.exit_code == 0, found.output
    return found


def policy(site: Site, *arguments: str) -> str:
    found = CliRunner().invoke(
        flowerbed, ["client", "policy", *arguments, "--state-dir", str(site.home)]
    )
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The example as it is, for the tenant of the sites; as near as their number allows."""
    written = yaml.safe_load(EXAMPLE.read_text())
    written["metadata"]["tenant"] = "acme"
    written["spec"] |= {"app": str(EXAMPLE.with_suffix("").absolute()), "min_clients": 3}
    path = tmp_path / "quickstart.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


@pytest.fixture
def strict(field: Field) -> Iterator[Field]:
    """Sites that nobody has told anything: an app that does not ship with us may not run."""
    yield field
    for site in field.sites:
        (site.home / "policy.json").unlink(missing_ok=True)


def declines(field: Field, identity: str) -> list[dict[str, Any]]:
    events = field.api.get(f"/federations/{identity}/events", limit=1000)["events"]
    return [one["data"] for one in events if one["type"] == "fl.client.declined"]


def test_an_app_is_refused_by_the_sites_until_they_allow_it_and_then_trained(
    strict: Field, spec: Path
) -> None:
    field = strict
    submitted = run(field, "federation", "submit", str(spec))
    refused = submitted.stdout.strip().splitlines()[0]
    app = next(word for word in submitted.stderr.split() if word.startswith("fab:")).rstrip(":")

    def pushed() -> list[dict[str, Any]]:
        apps = json.loads(run(field, "app", "list", "-o", "json").stdout)
        return [one for one in apps if one["app"] == app]

    (listed,) = until(pushed, "the gateway has heard of it")
    assert (listed["name"], listed["tenant"]) == ("quickstart", "acme")
    assert listed["pushed_by"] == "local-token"
    assert listed["uri"] in run(field, "app", "show", app).stdout

    until(lambda: len(declines(field, refused)) == len(field.sites), "every site declines", 30)
    assert {one["code"] for one in declines(field, refused)} == {"policy-app"}
    told = declines(field, refused)[0]["detail"]
    assert told == f"the site's policy does not allow it: {app} is not among apps"
    until(lambda: "policy-app" in run(field, "federation", "why", refused).stdout, "why says so")
    first = field.sites[0]
    status = json.loads((first.home / "status.json").read_text())
    assert f"policy-app: {told}" in status["last_error"]["message"]
    run(field, "federation", "cancel", refused)

    *willing, unwilling = field.sites
    for site in willing:
        assert app in policy(site, "allow", app)
    identity = run(field, "federation", "submit", str(spec)).stdout.strip().splitlines()[0]
    federation = field.completed(identity)
    assert {one["client_id"] for one in federation["clients"] if one["status"] == "joined"} <= {
        site.client_id for site in willing
    }
    assert [one["client_id"] for one in declines(field, identity)] == [unwilling.client_id]
    assert federation["metrics"]["eval_acc"] > 0.6
    assert field.api.post(f"/artifacts/{identity}/0/verify")["identical"]


def test_another_tenants_app_and_one_that_nobody_pushed_are_refused(field: Field) -> None:
    raw = run(field, "app", "push", "examples/quickstart", "--tenant", "rival").stdout.strip()
    environment = {
        "FLOWERBED_URL": field.stack.gateway_url, "FLOWERBED_TOKEN": field.stack.api_token,
    }  # fmt: skip
    for app, tenant in ((raw, "beta"), (f"fab:{'0' * 64}", "rival")):
        spec = {"app": app, "model_ref": {"uri": "app:quickstart.task:Net"}, "num_rounds": 1}
        document = {
            "apiVersion": "flowerbed/v1", "metadata": {"name": "x", "tenant": tenant}, "spec": spec,
        }  # fmt: skip
        found = CliRunner().invoke(
            flowerbed, ["federation", "submit", "-", "-o", "json"], input=json.dumps(document),
            env=environment,
        )  # fmt: skip
        assert found.exit_code == 2
        (problem,) = json.loads(found.stderr)["errors"]
        assert (
            problem["path"] == "spec.app" and f"pushed in tenant '{tenant}'" in problem["allowed"]
        )
