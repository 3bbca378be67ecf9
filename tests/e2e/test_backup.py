"""A stack is backed up while a round trains, goes on, and is destroyed; another takes its place.

The sites know nothing of it: their runners find the new stack at the old address.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.cli.api import Api
from flowerbed.contracts.catalogue import EVENTS
from flowerbed.embedded.control import down, up
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import remove
from flowerbed.events.codec import Codec
from flowerbed.events.rebuild import rebuild
from flowerbed.events.store import EventStore
from scripts.prepare_data import prepare
from tests.e2e.documents import hospital
from tests.e2e.test_history import READ_MODELS, contents
from tests.e2e.test_survival import nothing_accepted_is_lost, nothing_is_trained_twice
from tests.support.field import FLOWERBED, Field, hospitals

ROUNDS = 5
N_SITES = 2
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="flowerbed-e2e-backup-"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def small(scratch: Path) -> Iterator[Field]:
    described = prepare("hospital", scratch / "data", 7)
    names = [site["name"] for site in described["sites"]][:N_SITES]
    try:
        stack = up(scratch / "stack")
        field = Field(stack, Api(stack.gateway_url, stack.api_token))
        yield from hospitals(field, scratch / "data", scratch / "clients", names)
    finally:
        for state_dir in (scratch / "stack", scratch / "restored"):
            down(state_dir)
            remove(state_dir)


def document() -> dict[str, Any]:
    train = {"local_epochs": 300, "learning_rate": 0.005, "seed": 3}
    return hospital(num_rounds=ROUNDS, min_clients=N_SITES, train=train)


def flowerbed(*arguments: str | Path) -> str:
    done = subprocess.run([FLOWERBED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def replace_the_stack(field: Field, folder: Path, state_dir: Path) -> None:
    """Destroy it, with all that it held, and make another from the backup."""
    down(field.stack.state_dir)
    remove(field.stack.state_dir)
    flowerbed("restore", folder, "--state-dir", state_dir)
    up(state_dir)
    field.stack = Stack(state_dir)
    field.api = Api(field.stack.gateway_url, field.stack.api_token)


async def test_a_federation_under_way_goes_on_in_the_restored_stack(
    small: Field, scratch: Path
) -> None:
    undisturbed = small.completed(small.submit(document()), seconds=120)
    folder = scratch / "backup"
    flowerbed("backup", folder, "--state-dir", small.stack.state_dir)
    objects = stamps(folder)
    assert objects
    identity = small.submit(document())  # now: of its updates only those are kept that may count
    (folder / "snapshot-killed").mkdir()  # as a backup leaves it that did not come to its end
    with small.held_in_round(identity, 2):
        flowerbed("backup", folder, "--state-dir", small.stack.state_dir)
        number = small.training_round(identity)
    assert objects.items() <= stamps(folder).items()  # what was there was not fetched again
    assert len(list(folder.glob("snapshot-*"))) == 1
    with small.held_in_round(identity, number + 1):  # the new stack will know nothing of it
        replace_the_stack(small, folder, scratch / "restored")
    federation = small.completed(identity, seconds=120)

    assert federation["final"]["sha256"] == undisturbed["final"]["sha256"]
    assert [one["attempt"] for one in federation["rounds"]] == [1] * ROUNDS
    assert small.api.federation(undisturbed["federation_id"])["final"] == undisturbed["final"]
    for found in (undisturbed, federation):
        await nothing_accepted_is_lost(small, found["federation_id"], ROUNDS)
    nothing_is_trained_twice(small, identity, ROUNDS)
    await every_projection_follows_from_its_events(small)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("objects/*/*")}


async def every_projection_follows_from_its_events(field: Field) -> None:
    for service, projections in READ_MODELS.items():
        owner = await asyncpg.connect(field.stack.postgres_dsn(service, "owner"))
        try:
            for projection in projections:
                before = await contents(owner, projection)
                await rebuild(owner, projection, EventStore(Codec(EVENTS)))
                assert await contents(owner, projection) == before, projection.name
        finally:
            await owner.close()
