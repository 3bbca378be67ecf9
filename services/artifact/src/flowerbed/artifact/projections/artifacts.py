"""artifacts: every artifact with its parents; read by GET /internal/artifacts."""

import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from flowerbed.contracts.artifact import ArtifactRecorded, ArtifactRevoked
from flowerbed.events.connection import Connection
from flowerbed.events.database import Database
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded


class ArtifactView(BaseModel):
    """`channels`: those whose current artifact it is."""

    model_config = ConfigDict(frozen=True)

    federation_id: str
    round_number: int
    attempt: int
    exchange: str
    kind: str
    tenant: str
    sha256: str
    uri: str
    size: int
    parents: list[str]
    n_updates: int
    metrics: dict[str, float]
    recorded_at: datetime
    revoked_at: datetime | None
    revoked_reason: str
    channels: list[str]


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case ArtifactRecorded() as event:
            await _insert(tx, recorded, event)
        case ArtifactRevoked() as event:
            await tx.execute(
                "UPDATE artifacts SET revoked_at = $1, revoked_reason = $2"
                " WHERE federation_id = $3 AND sha256 = $4",
                recorded.recorded_at,
                event.reason,
                event.federation_id,
                event.sha256,
            )


async def _insert(tx: Connection, recorded: Recorded[Any], event: ArtifactRecorded) -> None:
    await tx.execute(
        "INSERT INTO artifacts (federation_id, round_number, attempt, exchange, kind, tenant,"
        " sha256, uri, size, parents, n_updates, metrics, recorded_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        event.federation_id,
        event.round_number,
        event.attempt,
        event.exchange,
        event.kind,
        recorded.context.tenant,
        event.artifact.sha256,
        event.artifact.uri,
        event.artifact.size,
        list(event.parents),
        event.n_updates,
        json.dumps(event.metrics),
        recorded.recorded_at,
    )


async def list_artifacts(database: Database, federation_id: str) -> list[ArtifactView]:
    """A federation's artifacts in the order of its rounds."""
    async with database.read_all() as connection:
        rows = await connection.fetch(
            "SELECT a.*, ARRAY(SELECT channel FROM channels c"
            "   WHERE c.federation_id = a.federation_id AND c.sha256 = a.sha256"
            "   ORDER BY channel) AS channels"
            " FROM artifacts a WHERE federation_id = $1"
            " ORDER BY round_number, attempt, exchange, kind",
            federation_id,
        )
    return [
        ArtifactView.model_validate({**dict(row), "metrics": json.loads(row["metrics"])})
        for row in rows
    ]


artifacts = Projection("artifacts", ("artifacts",), apply)
