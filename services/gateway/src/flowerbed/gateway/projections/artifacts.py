"""artifacts: what each round left behind, its parents, and the channels it is promoted to.

The same bytes may be recorded twice (two runs of one spec): each record is a row.
"""

from typing import Any

from flowerbed.contracts.artifact import ArtifactPromoted, ArtifactRecorded, ArtifactRevoked
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.projections.upsert import as_json, update, upsert

_PROMOTE = """
UPDATE artifacts SET channels = CASE
    WHEN sha256 = $3 THEN array_append(array_remove(channels, $4), $4)
    ELSE array_remove(channels, $4) END
WHERE tenant = $1 AND federation_id = $2 AND (sha256 = $3 OR $4 = ANY (channels))
"""


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    event, tenant = recorded.event, recorded.context.tenant
    match event:
        case ArtifactRecorded():
            await _record(tx, recorded, event)
        case ArtifactPromoted():
            await tx.execute(_PROMOTE, tenant, event.federation_id, event.sha256, event.channel)
        case ArtifactRevoked():
            await update(
                tx,
                "artifacts",
                {"tenant": tenant, "federation_id": event.federation_id, "sha256": event.sha256},
                {
                    "revoked_at": recorded.recorded_at,
                    "revoked_reason": event.reason,
                    "channels": [],
                },
            )


async def _record(tx: Connection, recorded: Recorded[Any], event: ArtifactRecorded) -> None:
    key = {
        "tenant": recorded.context.tenant,
        "federation_id": event.federation_id,
        "round_number": event.round_number,
        "attempt": event.attempt,
        "exchange": event.exchange,
        "kind": event.kind,
    }
    values = {
        "sha256": event.artifact.sha256,
        "uri": event.artifact.uri,
        "size": event.artifact.size,
        "parents": list(event.parents),
        "metrics": as_json(event.metrics),
        "recorded_at": recorded.recorded_at,
    }
    await upsert(tx, "artifacts", key, values)


artifacts = Projection("artifacts", ("artifacts",), apply)
