"""How clients' answers reach the bridge.

Over the bus: the lease service hands out the work orders by itself, and its facts say what came
back; the weights lie in S3. So there is nothing to send, only reports to read and bytes to fetch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from flowerbed.aggregator.projections.submissions import Report, late, unanswered
from flowerbed.aggregator.quorum import Terms
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.database import Database


class Transport(Protocol):
    async def reports(self, terms: Terms) -> Sequence[Report]:
        """What was reported of the wanted work and the exchange has not judged yet."""
        ...

    async def late_reports(self, terms: Terms) -> Sequence[Report]:
        """What was reported of the exchange's own work and, for certain, counts nowhere."""
        ...

    def fetch(self, update: ArtifactRef, path: Path, max_bytes: int | None = None) -> None:
        """Write an update's bytes to `path` once their digest is right. Blocks."""
        ...


class BusTransport:
    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    async def reports(self, terms: Terms) -> Sequence[Report]:
        async with self._database.read_all() as connection:
            return await unanswered(connection, terms.stream, list(terms.places))

    async def late_reports(self, terms: Terms) -> Sequence[Report]:
        async with self._database.read_all() as connection:
            return await late(connection, terms.stream)

    def fetch(self, update: ArtifactRef, path: Path, max_bytes: int | None = None) -> None:
        self._blobs.download(update.uri, path, sha256=update.sha256, max_bytes=max_bytes)
