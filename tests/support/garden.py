"""A small domain for the tests of the backbone: a bed is sown once and watered often."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from flowerbed.contracts.event import Event
from flowerbed.events.codec import Codec
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.decider import Decider
from flowerbed.events.errors import Rejected
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded
from flowerbed.events.store import EventStore


class Sown(Event):
    """Its type is one that the lease service may publish."""

    type: ClassVar[str] = "fl.client.enrolled"
    seed: str


class Watered(Event):
    type: ClassVar[str] = "fl.client.joined"
    litres: int


GardenEvent: TypeAlias = Sown | Watered


@dataclass(frozen=True, slots=True, kw_only=True)
class Sow:
    seed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Water:
    litres: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    seed: str | None = None
    litres: int = 0


class NothingSown(Rejected):
    code = "nothing-sown"


def decide(state: Bed, command: Sow | Water) -> list[GardenEvent]:
    match command:
        case Sow():
            return [] if state.seed is not None else [Sown(seed=command.seed)]
        case Water():
            if state.seed is None:
                raise NothingSown("nothing is sown in this bed")
            return [Watered(litres=command.litres)]


def evolve(state: Bed, event: GardenEvent) -> Bed:
    match event:
        case Sown():
            return Bed(seed=event.seed, litres=state.litres)
        case Watered():
            return Bed(seed=state.seed, litres=state.litres + event.litres)


bed: Decider[Bed, Sow | Water, GardenEvent] = Decider(Bed(), decide, evolve)

codec = Codec([Sown, Watered])

MIGRATIONS = Path(__file__).parent / "garden_migrations"
"""The tables `beds` and `notes`."""


async def apply(tx: Connection, recorded: Recorded[GardenEvent]) -> None:
    match recorded.event:
        case Sown() as sown:
            await tx.execute(
                "INSERT INTO beds (stream, tenant, seed) VALUES ($1, $2, $3)",
                recorded.stream, recorded.context.tenant, sown.seed,
            )  # fmt: skip
        case Watered() as watered:
            await tx.execute(
                "UPDATE beds SET litres = litres + $2 WHERE stream = $1",
                recorded.stream, watered.litres,
            )  # fmt: skip


beds = Projection("beds", ("beds",), apply)

store = EventStore(codec)

ROSES = Context(tenant="roses", correlation_id="fed-1")
TULIPS = Context(tenant="tulips", correlation_id="fed-2")
