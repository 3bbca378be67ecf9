"""The points of the crash matrix, from the topology: a new event type has its points by itself."""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from flowerbed.contracts.topology import DURABLES, STREAMS
from flowerbed.events.failpoints import Point

OWNED: tuple[Point, ...] = ("commit-before", "commit-after", "publish-before", "publish-after")
CONSUMED: tuple[Point, ...] = ("consume-before", "consume-after")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPoint:
    """Where a service is killed: at one moment of one event type's way."""

    service: str
    point: Point
    event_type: str

    def __str__(self) -> str:
        return f"{self.service} {self.point} {self.event_type}"


def points() -> list[MatrixPoint]:
    """All there are: four for what a service records, two for what it hears of."""
    return [*_of_owners(), *_of_consumers()]


def sample(seed: int, n: int, among: Sequence[MatrixPoint]) -> list[MatrixPoint]:
    """`n` of them, the same for the same seed."""
    return random.Random(f"{seed} matrix").sample(list(among), min(n, len(among)))


def met(among: Sequence[MatrixPoint], event_types: Collection[str]) -> list[MatrixPoint]:
    """Those that a federation which says `event_types` comes by."""
    return [point for point in among if point.event_type in event_types]


def spread(among: Sequence[MatrixPoint]) -> list[MatrixPoint]:
    """In turns between services: a service killed often in a row is started again ever later."""
    queues: dict[str, list[MatrixPoint]] = {}
    for point in among:
        queues.setdefault(point.service, []).append(point)
    found: list[MatrixPoint] = []
    while queues:
        longest_first = sorted(queues, key=lambda service: -len(queues[service]))
        for service in longest_first:
            found.append(queues[service].pop(0))
        queues = {service: queue for service, queue in queues.items() if queue}
    return found


def _of_owners() -> Iterator[MatrixPoint]:
    for stream in STREAMS:
        for event_type in stream.types:
            for point in OWNED:
                yield MatrixPoint(service=stream.owner, point=point, event_type=event_type)


def _of_consumers() -> Iterator[MatrixPoint]:
    read = dict.fromkeys((one.service, kind) for one in DURABLES for kind in one.types)
    for service, event_type in read:
        for point in CONSUMED:
            yield MatrixPoint(service=service, point=point, event_type=event_type)
