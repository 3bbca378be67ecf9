"""`flowerbed doctor` of a stack and of a site that are well: nothing has failed."""

import json
import subprocess
from typing import Any

import pytest

from tests.support.field import FLOWERBED, Field


def examined(*arguments: str) -> dict[str, Any]:
    command = [FLOWERBED, *arguments, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    failed = [one for one in told["findings"] if one["level"] == "failed"]
    assert (done.returncode, failed) == (0, [])
    return {one["check"]: one for one in told["findings"]}


def test_a_stack_that_is_well_has_no_fault(field: Field) -> None:
    found = examined("doctor", "--state-dir", str(field.stack.state_dir))
    wanted = ("versions", "permissions", "ports", "processes", "NATS", "S3", "dead letters", "lags")
    assert found.keys() >= set(wanted)


@pytest.mark.parametrize("arguments", [("doctor", "--client"), ("client", "doctor", "--state-dir")])
def test_a_site_that_is_well_has_no_fault(field: Field, arguments: tuple[str, ...]) -> None:
    site = field.sites[0]
    found = examined(*arguments, str(site.home))
    assert site.client_id in found["identity"]["seen"]
    assert found["admission"]["level"] == found["dataset"]["level"] == "ok"
