"""When something dies: S3 away, the bridge killed, an object gone. And the fold done again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flowerbed.aggregator.gathering import Gathering
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.federation import FederationPolicyChanged
from flowerbed.contracts.policy import RoundPolicy
from tests.integration.aggregator.conftest import Garden
from tests.support.servers import eventually

NOBODY = "http://127.0.0.1:9"
"""No S3 listens there."""


async def verify(garden: Garden, number: int = 1, **more: Any) -> Any:
    asked = {"federation_id": garden.federation_id, "round_number": number, **more}
    return await garden.http.post("/verify", json=asked)


async def one_round(garden: Garden) -> dict[str, Any]:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), n_required=2)
    await garden.submit("c", garden.put_model(3), n_examples=7)
    await garden.submit("b", None)
    await garden.submit("a", garden.put_model(1), n_examples=5)
    return await garden.outcome(stream)


async def test_folding_again_from_the_log_gives_the_same_bytes(garden: Garden) -> None:
    ended = await one_round(garden)
    answer = (await verify(garden, tenant="acme")).json()
    assert answer["expected"] == answer["actual"] == ended["checkpoint"]["sha256"]
    assert (answer["identical"], answer["n_updates"]) == (True, 2)


async def test_a_round_without_a_checkpoint_cannot_be_verified(garden: Garden) -> None:
    await one_round(garden)
    assert (await verify(garden, 2)).status_code == 404
    assert (await verify(garden, 1, tenant="other")).status_code == 404


async def test_verifying_says_when_an_update_is_gone(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a",))
    update = garden.put_model(1)
    await garden.submit("a", update)
    await garden.outcome(stream)
    bucket, key = update.uri.removeprefix("s3://").split("/", 1)
    garden.blobs._s3.delete_object(Bucket=bucket, Key=key)
    answer = await verify(garden)
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def away(garden: Garden) -> None:
    """From now on S3 does not answer the bridge."""
    assert garden.exchanges is not None
    blobs = Blobs(NOBODY, "nobody", "listens")
    garden.bridge.blobs._s3 = blobs._s3


async def test_while_s3_is_away_the_exchange_waits_and_then_goes_on(garden: Garden) -> None:
    await garden.create()
    await garden.outcome(garden.stream(0, 1, "initialize"))
    assert garden.exchanges is not None
    client = garden.bridge.blobs._s3
    away(garden)
    stream = await garden.start_round(("a", "b"))
    await garden.submit("a", garden.put_model(1))
    await garden.submit("b", garden.put_model(2))
    assert garden.shell is not None
    shell = garden.shell
    await eventually(lambda: shell.handled("lease") == 2, "both reports are heard")
    assert await garden.events(stream) == []
    garden.bridge.blobs._s3 = client
    assert (await garden.outcome(stream))["type"] == "aggregate.completed"


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A round policy of which the aggregator waits for S3 for a moment only."""
    monkeypatch.setattr("flowerbed.contracts.policy.LEAST_GRACE", 0.2)
    return {"deadline_seconds": 2.0}


async def test_when_s3_stays_away_past_the_grace_the_exchange_fails(
    garden: Garden, short_grace: dict[str, float]
) -> None:
    await garden.create(round_policy=short_grace)
    await garden.outcome(garden.stream(0, 1, "initialize"))
    away(garden)
    stream = await garden.start_round(("a", "b"), seconds=0.3)
    await garden.submit("a", garden.put_model(1))
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "store-unavailable")


async def test_an_update_that_s3_withholds_past_the_grace_is_refused(
    garden: Garden, short_grace: dict[str, float]
) -> None:
    await garden.create()
    changed = RoundPolicy.model_validate(short_grace)
    await garden.orchestrate(
        FederationPolicyChanged(
            federation_id=garden.federation_id,
            policy=changed.model_dump(mode="json"),
            changed=("deadline_seconds",),
        )
    )  # the grace follows from the policy in force when the exchange starts
    stream = await garden.start_round(("a", "b"), n_required=1, seconds=3.0)
    await garden.submit("a", garden.put_model(1))
    await garden.heard(stream, 1)
    away(garden)
    await garden.submit("b", garden.put_model(2))
    await garden.outcome(stream)
    ends = [(kind, data.get("code")) for kind, data in await garden.events(stream)]
    assert ends == [
        ("update.accepted", None),
        ("update.rejected", "store-unavailable"),
        ("aggregate.failed", "store-unavailable"),  # the checkpoint could not be stored either
    ]


async def test_an_initialization_fails_when_s3_is_away_past_the_deadline_to_join(
    garden: Garden,
) -> None:
    away(garden)
    await garden.create(join_seconds=0.3)
    ended = await garden.outcome(garden.stream(0, 1, "initialize"))
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "store-unavailable")


async def test_an_error_of_ours_fails_the_exchange_and_not_the_service(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    await garden.create()

    async def broken(self: Gathering, at: datetime) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Gathering, "_step", broken)
        ended = await garden.outcome(await garden.start_round(("a",)))
        assert (ended["code"], ended["reason"]) == ("internal-error", "ZeroDivisionError")
    await garden.start_round(("a",), attempt=2)
    await garden.submit("a", garden.put_model(1), attempt=2)
    assert (await garden.outcome(garden.stream(1, 2)))["type"] == "aggregate.completed"


@contextmanager
def bridge_process(garden: Garden, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m flowerbed.aggregator`, as the embedded stack runs it."""
    secrets = {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in garden.settings.model_dump().items()
    }
    file = folder / "aggregator.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(secrets, default=str))
    process = subprocess.Popen(
        [sys.executable, "-m", "flowerbed.aggregator"],
        env={**os.environ, "FLOWERBED_SETTINGS_FILE": str(file)},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_killed_in_mid_round_it_folds_again_without_asking_anyone(
    garden: Garden, tmp_path: Path
) -> None:
    await garden.create()
    updates = {name: garden.put_model(place) for place, name in enumerate("abc")}
    undisturbed = await garden.start_round(("a", "b", "c"), attempt=1)
    for name in "abc":
        await garden.submit(name, updates[name], attempt=1)
    wanted = (await garden.outcome(undisturbed))["checkpoint"]
    await garden.stop()
    stream = await garden.start_round(("a", "b", "c"), attempt=2)
    with bridge_process(garden, tmp_path) as process:
        for count, name in enumerate("ac", start=1):
            await garden.submit(name, updates[name], attempt=2)
            await garden.heard(stream, count)
        process.kill()
    with bridge_process(garden, tmp_path) as process:
        await garden.submit("b", updates["b"], attempt=2)
        assert (await garden.outcome(stream))["checkpoint"] == wanted
        process.terminate()
        await eventually(lambda: process.poll() == 0, "it ends when it is told to")
    accepted = [data["client_id"] for _, data in await garden.events(stream) if "place" in data]
    assert sorted(accepted) == ["a", "b", "c"]
