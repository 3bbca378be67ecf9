"""The artifact service on real servers: nothing is recorded that was not read back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.artifact.blobs import Blobs
from flowerbed.artifact.projections.federations import TELEMETRY
from flowerbed.contracts.aggregate import AggregateCompleted, FoldedUpdate
from flowerbed.contracts.values import ArtifactRef
from tests.integration.artifact.conftest import ArtifactService
from tests.support.federations import created
from tests.support.publishing import Publisher
from tests.support.s3 import S3Server
from tests.support.servers import MakeBus, eventually

FED = "fed-0123456789abcdef"


def stored(blobs: Blobs, s3: S3Server, folder: Path, content: bytes, key: str = "") -> ArtifactRef:
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / "content"
    path.write_bytes(content)
    return blobs.put_if_absent(s3.bucket, key or f"checkpoints/{sha256}", path, sha256)


def completed(checkpoint: ArtifactRef, **more: Any) -> AggregateCompleted:
    return AggregateCompleted(
        **{
            "federation_id": FED,
            "round_number": 0,
            "attempt": 1,
            "exchange": "initialize",
            "checkpoint": checkpoint,
            **more,
        }
    )


async def say(service: ArtifactService, event: AggregateCompleted) -> str:
    stream = f"exchange-{FED}-{event.round_number}-{event.attempt}-{event.exchange}"
    return await service.bridge.say(stream, FED, event)


async def types(service: ArtifactService) -> list[str]:
    return [event_type for event_type, _ in await service.events()]


async def n_events(service: ArtifactService, count: int) -> None:
    async def reached() -> bool:
        return len(await service.events()) >= count

    await eventually(reached, f"{count} events")


async def refused(service: ArtifactService) -> dict[str, str]:
    found: list[dict[str, str]] = []

    async def reached() -> bool:
        answer = await service.http.get("/status")
        found[:] = answer.json()["refused_artifacts"]
        return bool(found)

    await eventually(reached, "a refused artifact")
    return found[0]


async def test_a_checkpoint_and_its_state_are_recorded_with_their_lineage(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    base, checkpoint, state = (
        stored(blobs, s3, tmp_path, content) for content in (b"base", b"checkpoint", b"{}")
    )
    await say(service, completed(base))
    folded = FoldedUpdate(client_id="a", place=0, sha256="0" * 64, weight=3)
    await say(
        service,
        completed(
            checkpoint,
            round_number=1,
            exchange="train",
            state=state,
            parents=(base.sha256,),
            updates=(folded,),
            metrics={"train-loss": 0.5},
            owing=("client-b's work",),
        ),
    )
    await n_events(service, 3)
    answer = await service.http.get("/internal/artifacts", params={"federation_id": FED})
    listed = [(one["kind"], one["sha256"], one["parents"]) for one in answer.json()]
    assert listed == [
        ("base", base.sha256, []),
        ("checkpoint", checkpoint.sha256, [base.sha256]),
        ("state", state.sha256, [base.sha256]),
    ]
    assert answer.json()[1]["metrics"] == {"train-loss": 0.5}
    assert answer.json()[1]["n_updates"] == 1
    async with service.made.database.read_all() as reader:
        rows = await reader.fetch("SELECT data FROM events ORDER BY gpos")
    told = [json.loads(row["data"])["owing"] for row in rows]
    assert told == [[], ["client-b's work"], []], "the checkpoint says what it closed without"
    counters = (await service.http.get("/metrics")).text
    assert 'fl_artifacts_written_total{kind="checkpoint"} 1.0' in counters


async def test_an_evaluation_records_nothing(service: ArtifactService) -> None:
    event = completed(ArtifactRef(uri="s3://b/k", sha256="0" * 64, size=0))
    evaluation = event.model_copy(update={"checkpoint": None, "exchange": "evaluate"})
    await say(service, evaluation)
    assert service.shell is not None
    shell = service.shell
    await eventually(lambda: shell.handled("aggregator") == 1, "the event is handled")
    assert await types(service) == []


async def test_bytes_that_do_not_match_are_never_recorded(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    there = stored(blobs, s3, tmp_path, b"tampered", "checkpoints/tampered")
    claimed = there.model_copy(update={"sha256": "a" * 64})
    event_id = await say(service, completed(claimed))
    found = await refused(service)
    assert found["event_id"] == event_id
    assert f"has sha256 {there.sha256} and 8 bytes, not {'a' * 64}" in found["error"]
    assert await types(service) == []


async def test_a_missing_object_is_refused_and_recorded_once_it_is_put_back(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    content = b"late"
    sha256 = hashlib.sha256(content).hexdigest()
    uri = f"s3://{s3.bucket}/checkpoints/{sha256}"
    await say(service, completed(ArtifactRef(uri=uri, sha256=sha256, size=4)))
    found = await refused(service)
    assert "is not in S3" in found["error"]
    stored(blobs, s3, tmp_path, content)
    answer = await service.http.post(f"/internal/verifications/{found['event_id']}/retry")
    assert answer.status_code == 202
    await n_events(service, 1)
    again = await service.http.post(f"/internal/verifications/{found['event_id']}/retry")
    assert again.status_code == 404


async def test_what_was_heard_before_a_restart_is_verified_after_it(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    base = stored(blobs, s3, tmp_path, b"restart")
    assert service.shell is not None and service.verifier is not None
    service.verifier.blobs = Blobs("http://127.0.0.1:9", "nobody", "listens")
    await say(service, completed(base))
    shell = service.shell
    await eventually(lambda: shell.handled("aggregator") == 1, "the event is handled")
    await service.stop()
    assert await types(service) == []
    await service.start()
    await n_events(service, 1)


async def test_promoting_and_revoking_over_http(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    base = stored(blobs, s3, tmp_path, b"promoted")
    await say(service, completed(base))
    await n_events(service, 1)
    path, asked = f"/internal/artifacts/{base.sha256}", {"tenant": "acme", "federation_id": FED}
    for _ in range(2):
        answer = await service.http.post(f"{path}/promote", json={**asked, "channel": "stable"})
        assert answer.status_code == 200
    assert answer.json() == {"events": []}
    listed = await service.http.get("/internal/artifacts", params={"federation_id": FED})
    assert listed.json()[0]["channels"] == ["stable"]
    await service.http.post(f"{path}/revoke", json={**asked, "reason": "wrong data"})
    again = await service.http.post(f"{path}/promote", json=asked)
    assert (again.status_code, again.json()["code"]) == (409, "artifact-revoked")
    listed = await service.http.get("/internal/artifacts", params={"federation_id": FED})
    assert listed.json()[0]["channels"] == []
    assert listed.json()[0]["revoked_reason"] == "wrong data"
    unknown = await service.http.post(f"/internal/artifacts/{'e' * 64}/promote", json=asked)
    assert unknown.status_code == 404
    assert await types(service) == [
        "fl.artifact.recorded",
        "fl.artifact.promoted",
        "fl.artifact.revoked",
    ]


async def test_without_the_internal_token_nothing_is_told(service: ArtifactService) -> None:
    answer = await service.http.get(
        "/internal/artifacts", params={"federation_id": FED}, headers={"authorization": "Bearer x"}
    )
    assert answer.status_code == 401


async def test_it_is_ready_with_its_servers(service: ArtifactService) -> None:
    async def is_ready() -> bool:
        return (await service.http.get("/readyz")).status_code == 200

    await eventually(is_ready, "ready")


async def test_a_tenant_reads_and_writes_only_its_own_rows(
    service: ArtifactService, blobs: Blobs, s3: S3Server, tmp_path: Path
) -> None:
    base = stored(blobs, s3, tmp_path, b"tenants")
    await say(service, completed(base))
    await say(service, completed(base.model_copy(update={"sha256": "b" * 64}), attempt=2))
    await refused(service)
    await n_events(service, 1)
    asked = {"tenant": "acme", "federation_id": FED}
    await service.http.post(f"/internal/artifacts/{base.sha256}/promote", json=asked)
    database = service.made.database
    for table in ("verifications", "artifacts", "channels", "events"):
        async with database.transaction("acme") as tx:
            assert await tx.fetchval(f"SELECT count(*) FROM {table}") > 0
        async with database.transaction("other") as tx:
            assert await tx.fetchval(f"SELECT count(*) FROM {table}") == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction("other") as tx:
            await tx.execute(
                "INSERT INTO channels (federation_id, channel, tenant, sha256, promoted_at)"
                " VALUES ('f', 'c', 'acme', 's', now())"
            )


async def test_it_knows_where_a_spec_wants_the_spans_of_its_federation(
    service: ArtifactService, bus: MakeBus
) -> None:
    """From a table, so after a restart too; a federation that wants none has a row as well."""
    named = {"otlp_endpoint": "https://collector.example:4318", "otlp_protocol": "grpc"}
    orchestrator = Publisher(await bus("orchestrator"), "orchestrator")
    for identity, event in (("fed-a", created(telemetry=named)), ("fed-b", created())):
        told = event.model_copy(update={"federation_id": identity})
        await orchestrator.say(f"federation-{identity}", identity, told)

    async def known() -> dict[str, Any]:
        async with service.made.database.read_all() as connection:
            rows = await connection.fetch(TELEMETRY, ["fed-a", "fed-b", "fed-c"])
        return {row["federation_id"]: row["telemetry"] for row in rows}

    async def both() -> bool:
        return len(await known()) == 2

    await eventually(both, "both are known")
    assert json.loads((await known())["fed-a"]) == named
    assert (await known())["fed-b"] is None
