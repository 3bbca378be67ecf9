"""From the release before to this one, in the middle of a federation, without draining.

The release before is run from its own source. Its runners stay as they are: they train with the
code that the federation was created for. One site is ahead, with this release's runner: it waits.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowerbed.cli.api import Api
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.control import down, up
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import remove
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.e2e.test_survival import nothing_accepted_is_lost, nothing_is_trained_twice
from tests.support.field import Field, Site, hospitals, until
from tests.support.releases import Release, environment_of
from tests.support.rolling import Rolling

ROUNDS = 8
N_SITES = 2
AHEAD = "switzerland"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="flowerbed-e2e-upgrade-"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def before(scratch: Path) -> Release:
    return Release.unpacked("0.1.0", scratch)


@pytest.fixture(scope="module")
def names(scratch: Path) -> list[str]:
    described = prepare("hospital", scratch / "data", 7)
    return [site["name"] for site in described["sites"]][:N_SITES]


@pytest.fixture(scope="module")
def rolling(scratch: Path, before: Release, names: list[str]) -> Iterator[tuple[Rolling, Field]]:
    """Every process of it is of the release before."""
    rolling = Rolling(Layout.at(scratch / "rolling"), before)
    try:
        rolling.start()
        stack = Stack(rolling.layout.root)
        field = Field(stack, Api(stack.service_url("gateway"), stack.api_token))
        with closing(hospitals(field, scratch / "data", scratch / "old", names)) as sites:
            with environment_of(before):
                next(sites)
            runner = ahead(scratch).start(field.invite("acme", "hospital", "ahead"))
            assert runner.wait(300) == 0, runner.stderr and runner.stderr.read()
            yield rolling, field
    finally:
        ahead(scratch).stop()
        rolling.stop()
        remove(rolling.layout.root)


def ahead(scratch: Path) -> Site:
    """A site that runs this release already."""
    return Site("ahead", scratch / "data" / AHEAD, scratch / "ahead")


@pytest.fixture(scope="module")
def undisturbed(rolling: tuple[Rolling, Field]) -> dict[str, Any]:
    """Run by the release before, alone."""
    _, field = rolling
    return field.completed(field.submit(document()), seconds=120)


def document() -> dict[str, Any]:
    train = {"local_epochs": 300, "learning_rate": 0.005, "seed": 3}
    return hospital(num_rounds=ROUNDS, min_clients=N_SITES, train=train)


def refuses_other_code(site: Site) -> bool:
    """It has been offered work that another release's app is to do."""
    error = json.loads((site.home / "status.json").read_text())["last_error"]
    return error is not None and error["code"] == "code-hash"


async def released(field: Field) -> set[int]:
    return {
        (await field.rows(service, "SELECT coalesce(max(number), 1) AS n FROM release"))[0]["n"]
        for service in SERVICES
    }


async def roll(rolling: Rolling, field: Field, federation_id: str) -> None:
    """Each service in the middle of a round."""
    for number, service in enumerate(SERVICES, 1):
        with field.held_in_round(federation_id, number):
            if number == 1:
                await rolling.prepare()
            rolling.replace(service)
        if service == "gateway":
            address = f"http://127.0.0.1:{rolling.ports['gateway-2']}"
            field.api = Api(address, field.stack.api_token)


async def test_every_service_is_replaced_in_the_middle_of_a_federation(
    rolling: tuple[Rolling, Field], undisturbed: dict[str, Any], scratch: Path
) -> None:
    rolls, field = rolling
    until(partial(refuses_other_code, ahead(scratch)), "the site that is ahead refuses", 30)
    identity = field.submit(document())
    await roll(rolls, field, identity)
    assert await released(field) == {1}
    await rolls.finish()
    assert await released(field) == {2}
    federation = field.completed(identity, seconds=120)

    assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
    assert [one["attempt"] for one in federation["rounds"]] == [1] * ROUNDS
    for found in (undisturbed, federation):
        await nothing_accepted_is_lost(field, found["federation_id"], ROUNDS)
    nothing_is_trained_twice(field, identity, ROUNDS)
    of_today = hospital(num_rounds=1, min_clients=1, client_selector={"tags": ["ahead"]})
    field.completed(field.submit(of_today), seconds=60)


def test_up_takes_over_what_the_release_before_has_left(
    scratch: Path, before: Release, names: list[str], undisturbed: dict[str, Any]
) -> None:
    state_dir = scratch / "left"
    try:
        before.flowerbed("up", "--state-dir", str(state_dir))
        stack = Stack(state_dir)
        field = Field(stack, Api(stack.service_url("gateway"), stack.api_token))
        with closing(hospitals(field, scratch / "data", scratch / "left-sites", names)) as sites:
            with environment_of(before):
                next(sites)
            identity = field.submit(document())
            with field.held_in_round(identity, 2):
                before.flowerbed("down", "--state-dir", str(state_dir))
                stack = up(state_dir)
                field.api = Api(stack.gateway_url, stack.api_token)
            federation = field.completed(identity, seconds=120)
    finally:
        down(state_dir)
        remove(state_dir)
    assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
