"""answers: one row per client that an exchange has answered; what is not here is still to do."""

from typing import Any

from flowerbed.contracts.update import UpdateAccepted, UpdateQuarantined, UpdateRejected
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case UpdateAccepted(client_id=client_id):
            code = "accepted"
        case UpdateRejected(client_id=client_id, code=code):
            pass
        case UpdateQuarantined(client_id=client_id, code=code):
            pass
        case _:
            return
    await tx.execute(
        "INSERT INTO answers (stream, client_id, tenant, code) VALUES ($1, $2, $3, $4)",
        recorded.stream,
        client_id,
        recorded.context.tenant,
        code,
    )


answers = Projection("answers", ("answers",), apply)
