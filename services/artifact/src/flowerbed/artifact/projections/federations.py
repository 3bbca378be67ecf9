"""federations: where the spans of each are sent besides the operator's collector."""

import json

from flowerbed.contracts.federation import FederationCreated
from flowerbed.events.connection import Connection
from flowerbed.events.recorded import Recorded

TELEMETRY = "SELECT federation_id, telemetry FROM federations WHERE federation_id = ANY ($1)"


async def remember(tx: Connection, recorded: Recorded[FederationCreated]) -> None:
    telemetry = recorded.event.spec.get("spec", {}).get("telemetry")
    await tx.execute(
        "INSERT INTO federations (federation_id, tenant, telemetry) VALUES ($1, $2, $3)"
        " ON CONFLICT (federation_id) DO NOTHING",
        recorded.event.federation_id,
        recorded.context.tenant,
        None if telemetry is None else json.dumps(telemetry),
    )
