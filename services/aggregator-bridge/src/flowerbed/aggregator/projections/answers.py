"""answers: one row per piece of work that an exchange has answered; the rest is still to do."""

from typing import Any

from flowerbed.contracts.ids import work_id
from flowerbed.contracts.update import (
    UpdateAccepted,
    UpdateEvent,
    UpdateQuarantined,
    UpdateRejected,
)
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case UpdateAccepted():
            code = "accepted"
        case UpdateRejected(code=code) | UpdateQuarantined(code=code):
            pass
        case _:
            return
    event: UpdateEvent = recorded.event
    await tx.execute(
        "INSERT INTO answers (stream, client_id, tenant, code, owed_work_id)"
        " VALUES ($1, $2, $3, $4, $5)",
        recorded.stream,
        event.client_id,
        recorded.context.tenant,
        code,
        None if event.work_id == _own(event) else event.work_id,
    )


def _own(event: UpdateEvent) -> str:
    """The work that the answering exchange itself ordered from the client."""
    return work_id(
        event.federation_id, event.round_number, event.attempt, event.exchange, event.client_id
    )


answers = Projection("answers", ("answers",), apply)
