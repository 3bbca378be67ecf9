"""A FederationSpec in, a verified global checkpoint out; posted or published, it is the same."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import nats
import pytest
from safetensors.torch import load_file

from flowerbed.contracts.ids import federation_id
from flowerbed.flower_apps.hospital.task import Net
from scripts.baselines import evaluate_checkpoint
from tests.e2e.documents import hospital
from tests.support.field import Field, until


async def publish(field: Field, body: bytes, identity: str) -> str:
    """As a user does who may publish FederationSpecs and nothing else."""
    access = field.stack.nats_submitter
    connection = await nats.connect(
        access.url, user=access.user, password=access.password, inbox_prefix=b"_INBOX.submitter"
    )
    try:
        answer = await connection.jetstream().publish(
            "fl.federation.submitted", body, headers={"Nats-Msg-Id": identity}
        )
        assert answer.stream == "FL_SUBMISSIONS"
    finally:
        await connection.close()
    return federation_id("acme", identity)


@pytest.fixture(scope="module")
def posted(field: Field) -> dict[str, Any]:
    return field.completed(field.submit(hospital()))


def unnamed(history: list[dict[str, Any]], identity: str) -> list[Any]:
    """A history without what rightly differs between two runs: ids and times."""
    drop = ("federation_id", "submission_id", "lease_id", "lease_epoch", "client_id", "work_id")
    clocks = ("_at", "_until", "_seconds")

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: clean(item)
                for key, item in value.items()
                if key not in drop and not key.endswith(clocks)
            }
        if isinstance(value, list):
            return [clean(item) for item in value]
        return value.replace(identity, "FED") if isinstance(value, str) else value

    return [(one["type"], one["version"], clean(one["data"])) for one in history]


async def test_a_published_spec_gives_the_same_federation_as_a_posted_one(
    field: Field, posted: dict[str, Any]
) -> None:
    identity = await publish(field, json.dumps(hospital()).encode(), "published-1")
    # It is told to nobody: the gateway learns of it from the orchestrator's event.
    until(lambda: _known(field, identity), "the published federation is known")
    published = field.completed(identity)
    assert published["final"]["sha256"] == posted["final"]["sha256"]
    for service in ("orchestrator", "artifact"):
        ours = await field.history(service, identity)
        theirs = await field.history(service, posted["federation_id"])
        assert unnamed(ours, identity) == unnamed(theirs, posted["federation_id"])


def _known(field: Field, identity: str) -> bool:
    found = field.api.get("/federations", limit=500)["federations"]
    return identity in {one["federation_id"] for one in found}


async def test_a_spec_published_twice_is_one_federation(field: Field) -> None:
    body = json.dumps(hospital(min_clients=999)).encode()
    identity = await publish(field, body, "published-2")
    assert await publish(field, body, "published-2") == identity
    until(lambda: _known(field, identity), "the published federation is known")
    history = await field.history("orchestrator", identity)
    assert [one["type"] for one in history] == ["fl.federation.created"]
    field.api.post(f"/federations/{identity}/cancel", {"reason": "enough"})


async def test_the_checkpoint_is_what_postgres_and_the_report_say(
    field: Field, posted: dict[str, Any], tmp_path: Path, scratch: Path
) -> None:
    access = field.stack.s3
    s3 = boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name="us-east-1",
    )
    (row,) = await field.rows(
        "artifact",
        "SELECT uri, sha256 FROM artifacts WHERE federation_id = $1 AND round_number = 3"
        " AND kind = 'checkpoint'",
        posted["federation_id"],
    )
    bucket, _, key = row["uri"].removeprefix("s3://").partition("/")
    file = tmp_path / "final.safetensors"
    s3.download_file(bucket, key, str(file))
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
    assert key.endswith(f"{row['sha256']}.safetensors")
    Net().load_state_dict(load_file(file), strict=True)
    score = evaluate_checkpoint(scratch / "data", file).pooled
    reported = posted["rounds"][-1]["evaluation"]["accuracy"]
    assert reported == pytest.approx(score.accuracy, abs=1e-6)


async def test_the_lineage_leads_from_the_base_to_the_final_checkpoint(
    field: Field, posted: dict[str, Any]
) -> None:
    rows = await field.rows(
        "artifact",
        "SELECT round_number, kind, sha256, parents FROM artifacts WHERE federation_id = $1"
        " ORDER BY round_number",
        posted["federation_id"],
    )
    line = [row for row in rows if row["kind"] != "state"]
    assert [row["kind"] for row in line] == ["base", "checkpoint", "checkpoint", "checkpoint"]
    for before, after in pairwise(line):
        assert before["sha256"] in after["parents"]
    states = [row for row in rows if row["kind"] == "state"]
    assert [row["round_number"] for row in states] == [1, 2, 3]


def test_every_aggregate_folded_again_gives_the_same_bytes(
    field: Field, posted: dict[str, Any]
) -> None:
    for number in range(4):
        path = f"/artifacts/{posted['federation_id']}/{number}/verify"
        assert field.api.post(path, patience=60)["identical"] is True


def test_another_seed_gives_other_bytes(field: Field, posted: dict[str, Any]) -> None:
    train = {**hospital()["spec"]["train"], "seed": 12}
    other = field.completed(field.submit(hospital(train=train)))
    assert other["final"]["sha256"] != posted["final"]["sha256"]


def test_fedprox_trains_too(field: Field, posted: dict[str, Any]) -> None:
    strategy = {"name": "fedprox", "params": {"proximal_mu": 1.0}}
    run = field.completed(field.submit(hospital(strategy=strategy)))
    assert run["final"]["sha256"] != posted["final"]["sha256"]
    assert run["rounds"][-1]["evaluation"]["accuracy"] > 0.6
