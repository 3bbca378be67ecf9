"""What is known of one federation, from its events alone: the input of `why`.

    Submitted ──> Starting ──> Exchange <──> Between ──> Ended

One `stage` at a time, and beside it the clients, a pause, dead letters and the last error.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from flowerbed.contracts.policy import SHORTEST_EXCHANGE, Budget, RoundPolicy
from flowerbed.contracts.spec import Spec
from flowerbed.gateway.views import Status
from flowerbed.gateway.why.view import LastError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    code: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`status`: `enrolled` has not been offered a lease; the others are those of its lease.

    `since`: when it came to be so. `declined`: why the site does not take the lease up.
    """

    client_id: str
    status: str
    since: datetime | None = None
    label: str = ""
    tags: tuple[str, ...] = ()
    reason: str = ""
    declined: Failure | None = None

    @property
    def is_joined(self) -> bool:
        return self.status == "joined"

    @property
    def shown_label(self) -> str:
        return self.label or ", ".join(self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one client was asked for. `is_owed`: in an earlier round.

    `instead_of`: who had its place, and left before it answered.
    `verdict`: of the aggregator, e.g. `accepted`; empty while there is none.
    """

    client_id: str
    round_number: int
    attempt: int = 1
    asked_at: datetime | None = None
    is_owed: bool = False
    instead_of: str = ""
    reported_at: datetime | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """Before the first round."""

    since: datetime
    until: datetime | None
    base_made_at: datetime | None = None
    base_recorded_at: datetime | None = None
    base_failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Open, or closed by the aggregator and not yet moved on from by the orchestrator.

    `judged_at`: when the aggregator last decided about an answer.
    `failure`: closed without an aggregate. `recorded_at`: of the new checkpoint.
    """

    exchange: Literal["train", "evaluate"]
    federation_id: str
    round_number: int
    attempt: int
    started_at: datetime
    deadline_at: datetime
    goal: int
    n_required: int
    work: tuple[Work, ...]
    judged_at: datetime | None = None
    closed_at: datetime | None = None
    failure: Failure | None = None
    recorded_at: datetime | None = None

    @property
    def place(self) -> str:
        return f"round {self.round_number}, {self.exchange}"

    @property
    def budget(self) -> Budget:
        """What it was opened with; a policy that has changed since counts from the next one on."""
        seconds = (self.deadline_at - self.started_at).total_seconds()
        return Budget.of(RoundPolicy(deadline_seconds=max(seconds, SHORTEST_EXCHANGE)))

    @property
    def n_accepted(self) -> int:
        return sum(one.verdict == "accepted" for one in self.work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Before `attempt` of `round_number`. `failure`: of the attempt before, in the same round.

    `is_last`: no attempt is left.
    """

    since: datetime
    until: datetime | None
    round_number: int
    attempt: int
    failure: Failure | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The app's whole ServerApp runs. `number`: of its last exchange; `work`: each client's last.

    `until`: when the last one runs out.
    """

    since: datetime
    until: datetime
    number: int = 0
    work: tuple[Work, ...] = ()
    restarted_at: datetime | None = None
    has_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    at: datetime | None
    code: str
    reason: str


Stage: TypeAlias = Submitted | Starting | Exchange | Between | Serving | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    since: datetime
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The oldest event of the federation that a consumer of a service could not handle."""

    service: str
    consumer: str
    event: str
    error: str
    parked_at: datetime
    n_behind: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`spec`: with the round policy that holds now. `away`: services that did not answer."""

    federation_id: str
    status: Status
    stage: Stage
    spec: Spec | None = None
    clients: tuple[Client, ...] = ()
    pause: Pause | None = None
    letters: tuple[Letter, ...] = ()
    away: frozenset[str] = frozenset()
    last_error: LastError | None = None

    @property
    def policy(self) -> RoundPolicy:
        return RoundPolicy() if self.spec is None else self.spec.round_policy

    @property
    def n_needed(self) -> int:
        """Clients without which no round starts."""
        least = 1 if self.spec is None else self.spec.n_expected
        return max(least, self.policy.buffer_size or 0)

    @property
    def joined(self) -> tuple[Client, ...]:
        return tuple(client for client in self.clients if client.is_joined)

    def client(self, client_id: str) -> Client | None:
        return next((one for one in self.clients if one.client_id == client_id), None)
