"""The types with more behind them than their own row: federations, rounds, jobs."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, TypeAlias

import strawberry
from strawberry.scalars import JSON

from flowerbed.events.errors import Rejected
from flowerbed.gateway.feed import FeedEvent
from flowerbed.gateway.graph.context import Info
from flowerbed.gateway.graph.kinds import connection, kind_of, paged
from flowerbed.gateway.many import (
    ARTIFACTS,
    EVENTS,
    MEMBERSHIPS,
    ROUNDS,
    UPDATES,
    FederationRow,
    Listing,
    Parent,
    RoundRow,
    Wanted,
)
from flowerbed.gateway.service_routes import Service
from flowerbed.gateway.slo import Slo
from flowerbed.gateway.views import (
    Artifact,
    ArtifactRecords,
    Client,
    FederationSummary,
    Lineage,
    Membership,
    Ref,
    Status,
    Update,
)
from flowerbed.gateway.why.view import Why

MOST = 200
First: TypeAlias = Annotated[
    int, strawberry.argument(description=f"How many at most, 1 to {MOST}.")
]
After: TypeAlias = Annotated[
    str | None, strawberry.argument(description="`endCursor` of the page before.")
]
Root: TypeAlias = strawberry.Parent[Any]


class OutOfRange(Rejected):
    code = "out-of-range"
    status = 422


def checked_first(first: int) -> int:
    if not 1 <= first <= MOST:
        raise OutOfRange(f"first is {first}; 1 to {MOST} is allowed")
    return first


async def page(
    info: Info,
    listing: Listing[Any],
    parent: Parent,
    first: int,
    after: str | None,
    **matching: str | int | None,
) -> Any:
    meant = tuple((name, (str(value),)) for name, value in matching.items() if value is not None)
    wanted = Wanted(checked_first(first), after, meant)
    found = await info.context.page(listing, parent, wanted)
    return connection(found.rows, found.more, behind=after is not None)


# --- rounds -----------------------------------------------------------------


async def _updates(
    root: Root, info: Info, first: First = 20, after: After = None,
    exchange: str | None = None, status: str | None = None, client_id: str | None = None,
) -> Any:  # fmt: skip
    parent = (root.tenant, root.federation_id, root.round_number, root.attempt)
    return await page(
        info, UPDATES, parent, first, after, exchange=exchange, status=status, client_id=client_id
    )


UpdateKind = kind_of(Update)
RoundKind = kind_of(
    RoundRow,
    name="Round",
    resolved={
        "updates": strawberry.field(
            resolver=_updates,
            graphql_type=paged(UpdateKind),
            description="What became of each client's answer in this attempt.",
        )
    },
)


# --- federations ------------------------------------------------------------


def _parent(root: Any) -> tuple[str, str]:
    return root.tenant, root.federation_id


async def _row(root: Any, info: Info) -> FederationRow:
    found: FederationRow = await info.context.rows.load(_parent(root))
    return found


async def _spec(root: Root, info: Info) -> Any:
    return (await _row(root, info)).spec


async def _problems(root: Root, info: Info) -> Any:
    return (await _row(root, info)).problems


async def _join_deadline_at(root: Root, info: Info) -> Any:
    return (await _row(root, info)).join_deadline_at


async def _pause_expires_at(root: Root, info: Info) -> Any:
    return (await _row(root, info)).pause_expires_at


async def _base_sha256(root: Root, info: Info) -> Any:
    return (await _row(root, info)).base_sha256


async def _final(root: Root, info: Info) -> Any:
    row = await _row(root, info)
    return None if row.final_sha256 is None else Ref(sha256=row.final_sha256, uri=row.final_uri)


async def _metrics(root: Root, info: Info) -> Any:
    return await info.context.metrics.load(_parent(root))


async def _lineage(root: Root, info: Info) -> Any:
    return await info.context.lineages.load(_parent(root))


async def _rounds(
    root: Root, info: Info, first: First = 20, after: After = None,
    status: str | None = None, round_number: int | None = None,
) -> Any:  # fmt: skip
    parent = _parent(root)
    return await page(info, ROUNDS, parent, first, after, status=status, round_number=round_number)


async def _clients(
    root: Root, info: Info, first: First = 20, after: After = None, status: str | None = None
) -> Any:
    return await page(info, MEMBERSHIPS, _parent(root), first, after, status=status)


async def _artifacts(
    root: Root, info: Info, first: First = 20, after: After = None, kind: str | None = None
) -> Any:
    return await page(info, ARTIFACTS, _parent(root), first, after, kind=kind)


async def _events(
    root: Root, info: Info, first: First = 20, after: After = None, type: str | None = None
) -> Any:
    return await page(info, EVENTS, _parent(root), first, after, type=type)


MembershipKind, ArtifactKind = kind_of(Membership), kind_of(Artifact)
EventKind, LineageKind, RefKind = kind_of(FeedEvent), kind_of(Lineage), kind_of(Ref)
ClientKind, WhyKind, RecordsKind = kind_of(Client), kind_of(Why), kind_of(ArtifactRecords)
ServiceKind, SloKind = kind_of(Service), kind_of(Slo)


def _field(resolver: Any, kind: Any, told: str = "") -> Any:
    return strawberry.field(resolver=resolver, graphql_type=kind, description=told or None)


FederationKind = kind_of(
    FederationSummary,
    name="Federation",
    resolved={
        "spec": _field(_spec, JSON | None, "As it was submitted."),
        "problems": _field(_problems, JSON, "Why it was rejected: every broken rule."),
        "join_deadline_at": _field(_join_deadline_at, datetime | None),
        "pause_expires_at": _field(_pause_expires_at, datetime | None),
        "base_sha256": _field(_base_sha256, str | None),
        "final": _field(_final, RefKind | None),
        "metrics": _field(_metrics, JSON, "Of the newest evaluated checkpoint."),
        "lineage": _field(_lineage, LineageKind),
        "rounds": _field(_rounds, paged(RoundKind), "Every attempt, oldest first."),
        "clients": _field(_clients, paged(MembershipKind)),
        "artifacts": _field(_artifacts, paged(ArtifactKind)),
        "events": _field(_events, paged(EventKind), "Its history, oldest first."),
    },
)


# --- jobs -------------------------------------------------------------------

NO_DIFFERENTIAL_PRIVACY = (
    "differential privacy is not built: no noise is added, so there is no budget to spend"
)


@strawberry.enum(description="A federation's status in the words of a job queue.")
class JobStatus(Enum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


JOB_STATUS: dict[Status, JobStatus] = {
    "submitted": JobStatus.PENDING,
    "created": JobStatus.PENDING,
    "running": JobStatus.RUNNING,
    "paused": JobStatus.RUNNING,
    "completed": JobStatus.SUCCEEDED,
    "rejected": JobStatus.FAILED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
}


@strawberry.type(description="What of a differential-privacy budget is spent.")
class PrivacyBudget:
    epsilon: float
    delta: float
    spent_epsilon: float


@strawberry.type(description="A federation as a job. `reason` is why it failed, in plain words.")
class FederatedTrainingJob:
    id: strawberry.ID
    job_name: str
    status: JobStatus
    reason: str
    privacy_budget: PrivacyBudget | None
    privacy_budget_reason: str | None = strawberry.field(
        description="Why there is no privacy budget, where there is none."
    )
    federation: Any = strawberry.field(graphql_type=FederationKind)


def job_of(found: FederationSummary) -> FederatedTrainingJob:
    return FederatedTrainingJob(
        id=strawberry.ID(found.federation_id),
        job_name=found.name,
        status=JOB_STATUS[found.status],
        reason=found.reason or found.code,
        privacy_budget=None,
        privacy_budget_reason=NO_DIFFERENTIAL_PRIVACY,
        federation=found,
    )
