"""A whole service of the garden, also as a process: `python -m tests.support.garden_service`.

Its settings come from FLOWERBED_SETTINGS_FILE, as for every service.
"""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from flowerbed.events.commands import handle
from flowerbed.events.consumer import Consumer
from flowerbed.events.context import Context
from flowerbed.events.database import Connection, Database
from flowerbed.events.errors import Conflict, FlowerbedError, NotFound
from flowerbed.events.recorded import Recorded
from flowerbed.events.service import Shell, run
from flowerbed.events.settings import ServiceSettings
from flowerbed.events.store import EventStore
from tests.support.garden import Sow, Sown, Water, Watered, bed, beds, codec


class Watering(BaseModel):
    litres: int
    federation_id: str = "_"


async def note(tx: Connection, recorded: Recorded[Any]) -> None:
    await tx.execute(
        "INSERT INTO notes (stream, version, tenant) VALUES ($1, $2, $3)",
        recorded.stream, recorded.version, recorded.context.tenant,
    )  # fmt: skip


async def build(shell: Shell) -> None:
    store = shell.store(codec, [beds])
    shell.app.include_router(routes(shell.database, store))
    if shell.service == "gateway":
        shell.consume(Consumer("notes", "FL_LEASE", {Sown: note, Watered: note}, codec))


def routes(database: Database, store: EventStore) -> APIRouter:
    router = APIRouter()

    @router.post("/beds/{stream}/sow")
    async def sow(stream: str, federation_id: str = "_") -> dict[str, int]:
        context = Context(tenant="roses", correlation_id=federation_id)
        events = await handle(database, store, bed, stream, Sow(seed="a"), context)
        return {"recorded": len(events)}

    @router.post("/beds/{stream}/water")
    async def water(stream: str, watering: Watering) -> dict[str, int]:
        context = Context(tenant="roses", correlation_id=watering.federation_id)
        command = Water(litres=watering.litres)
        return {"recorded": len(await handle(database, store, bed, stream, command, context))}

    @router.get("/beds/{stream}")
    async def show(stream: str) -> dict[str, Any]:
        async with database.transaction("roses") as tx:
            row = await tx.fetchrow("SELECT seed, litres FROM beds WHERE stream = $1", stream)
        if row is None:
            raise NotFound(f"no bed {stream!r}")
        return dict(row)

    @router.get("/fails/{how}")
    async def fail(how: str) -> None:
        match how:
            case "conflict":
                raise Conflict("bed-1", 3)
            case "unknown":
                raise FlowerbedError("something of ours")
            case _:
                raise RuntimeError("a secret detail")

    return router


if __name__ == "__main__":
    run(ServiceSettings.load(), build)
