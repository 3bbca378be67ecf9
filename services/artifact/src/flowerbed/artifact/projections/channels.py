"""channels: the current artifact of each channel of a federation."""

from typing import Any

from flowerbed.contracts.artifact import ArtifactPromoted, ArtifactRevoked
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case ArtifactPromoted() as event:
            await tx.execute(
                "INSERT INTO channels (federation_id, channel, tenant, sha256, promoted_at)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (federation_id, channel)"
                " DO UPDATE SET sha256 = EXCLUDED.sha256, promoted_at = EXCLUDED.promoted_at",
                event.federation_id,
                event.channel,
                recorded.context.tenant,
                event.sha256,
                recorded.recorded_at,
            )
        case ArtifactRevoked() as event:
            await tx.execute(
                "DELETE FROM channels WHERE federation_id = $1 AND sha256 = $2",
                event.federation_id,
                event.sha256,
            )


channels = Projection("channels", ("channels",), apply)
