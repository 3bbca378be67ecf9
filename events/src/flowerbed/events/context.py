"""Why an event is recorded: for whom, in which federation, because of what."""

from dataclasses import dataclass

NO_FEDERATION = "_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`correlation_id` is the federation; `causation_id` the event that led to this one."""

    tenant: str
    correlation_id: str = NO_FEDERATION
    causation_id: str | None = None
    traceparent: str | None = None
    actor: str | None = None
