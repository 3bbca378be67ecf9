"""Says facts in the place of a service that does not run in a test."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from flowerbed.contracts.event import Event
from flowerbed.events.jetstream import Bus
from flowerbed.events.message import Mark, outgoing


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
        await self.bus.publish(outgoing(row, self.service, Mark()))
        return str(row["id"])
