"""An event as it was recorded, with its place in its stream and in the store."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from flowerbed.events.context import NO_FEDERATION, Context

E_co = TypeVar("E_co", covariant=True)


def lane_of(correlation_id: str, stream: str) -> str:
    """What keeps its order, and stops together: a federation, or a stream outside of any."""
    return stream if correlation_id == NO_FEDERATION else correlation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Generic[E_co]):
    """`version` counts within the stream, from 1; `position` is the owner's place (gpos)."""

    position: int
    stream: str
    version: int
    id: UUID
    type: str
    schema_version: int
    event: E_co
    context: Context
    recorded_at: datetime

    def consequence(self, actor: str | None = None) -> Context:
        """The context of whatever is recorded because of this event."""
        return Context(
            tenant=self.context.tenant,
            correlation_id=self.context.correlation_id,
            causation_id=str(self.id),
            traceparent=self.context.traceparent,
            actor=actor,
        )
