"""Says facts in the place of a service that does not run in a test."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from flowerbed.contracts.event import Event
from flowerbed.events.errors import Unavailable
from flowerbed.events.jetstream import Bus
from flowerbed.events.message import Mark, outgoing

PATIENCE = 30.0
"""Seconds. A relay sends again what NATS did not take, with the same id; so does its stand-in."""


@dataclass(slots=True)
class Publisher:
    """Publishes as `service` would, with rising versions in each event stream."""

    bus: Bus
    service: str
    tenant: str = "acme"
    _versions: dict[str, int] = field(default_factory=dict)

    async def say(self, stream: str, federation_id: str, event: Event) -> str:
        """The event's id."""
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        row = {
            "id": uuid4(),
            "type": event.type,
            "stream": stream,
            "version": version,
            "schema_version": event.schema_version,
            "tenant": self.tenant,
            "data": event.model_dump_json(),
            "meta": json.dumps({"correlation_id": federation_id}),
            "recorded_at": datetime.now(UTC),
        }
        message, end = outgoing(row, self.service, Mark()), time.monotonic() + PATIENCE
        while True:
            try:
                await self.bus.publish(message)
                return str(row["id"])
            except Unavailable:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)
