"""What the gateway answers: one model a resource."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Status = Literal[
    "submitted", "rejected", "created", "running", "paused", "completed", "failed", "cancelled"
]
"""`submitted`: published, and not yet taken up by the orchestrator."""

ENDED: frozenset[str] = frozenset({"rejected", "completed", "failed", "cancelled"})


class View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Submitted(View):
    federation_id: str
    submission_id: str
    status_url: str


class FederationSummary(View):
    """One line of a list. `round_number` is the newest round that was started.

    `n_clients`: those joined now; of an ended one, those who took part. None: not counted.
    """

    federation_id: str
    tenant: str
    name: str
    status: Status
    submission_id: str
    round_number: int = 0
    n_rounds: int = 0
    n_rounds_completed: int = 0
    n_clients: int | None = None
    code: str = ""
    reason: str = ""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    updated_at: datetime


class FederationList(View):
    federations: list[FederationSummary]
    next_cursor: str | None = None


class UpdateCounts(View):
    """Clients of a cohort by what became of their answer; `asked` are those not heard of yet.

    `replaced` left before they answered; another client was asked in their place.
    """

    asked: int = 0
    replaced: int = 0
    submitted: int = 0
    accepted: int = 0
    rejected: int = 0
    quarantined: int = 0
    failed: int = 0


class UpdateBytes(View):
    """Of an attempt's accepted updates: `sent` as they travelled, in that `form`, null for full.

    `full`: what they would have had in full; `error`: the mean of their relative L2 errors.
    """

    form: str | None = None
    sent: int | None = None
    full: int | None = None
    error: float | None = None


class Round(View):
    """One attempt of a round. `train_seconds`: the slowest client's; the rest of it is ours.

    `n_updates`: those in its checkpoint, as soon as it is made.
    `aggregated_at`: the fold was closed; `recorded_at`: its checkpoint was read back and recorded.
    """

    round_number: int
    attempt: int
    status: Literal["training", "evaluating", "completed", "failed"]
    n_cohort: int
    n_required: int
    n_updates: int | None = None
    base_sha256: str | None
    checkpoint_sha256: str | None
    checkpoint_uri: str | None
    training: dict[str, float]
    evaluation: dict[str, float]
    evaluation_error: str
    train_seconds: float | None
    evaluate_seconds: float | None
    total_seconds: float | None
    code: str
    reason: str
    started_at: datetime | None
    deadline_at: datetime | None
    aggregated_at: datetime | None = None
    recorded_at: datetime | None = None
    evaluation_started_at: datetime | None
    finished_at: datetime | None
    train_updates: UpdateCounts = UpdateCounts()
    evaluate_updates: UpdateCounts = UpdateCounts()
    update_bytes: UpdateBytes = UpdateBytes()


class Update(View):
    """One client's answer in one exchange. What its site did not measure is null.

    `n_tokens`: counted by the app. `joules`: of the site's machine while the app ran;
    `joules_reason`: why there are none. `size`: its bytes, in that `form`; null is full, else
    `full_size` is what it would have had, and `form_error` the relative L2 error, as the site says.
    """

    round_number: int
    attempt: int
    exchange: Literal["train", "evaluate"]
    client_id: str
    place: int | None
    status: Literal[
        "asked", "replaced", "submitted", "accepted", "rejected", "quarantined", "failed"
    ]
    n_examples: int | None
    train_seconds: float | None
    download_seconds: float | None = None
    upload_seconds: float | None = None
    n_tokens: int | None = None
    joules: float | None = None
    joules_reason: str | None = None
    metrics: dict[str, float] | None
    sha256: str | None
    uri: str | None
    size: int | None = None
    form: str | None = None
    full_size: int | None = None
    form_error: float | None = None
    code: str | None
    detail: str | None
    asked_at: datetime | None
    reported_at: datetime | None
    decided_at: datetime | None


class RoundDetail(View):
    federation_id: str
    attempts: list[Round]
    updates: list[Update]


class Membership(View):
    """A client in a federation, by its newest lease."""

    client_id: str
    status: Literal["issued", "joined", "dropped", "released"]
    epoch: int
    dataset: str | None
    tags: list[str]
    reason: str
    joined_at: datetime | None
    ended_at: datetime | None


class Artifact(View):
    federation_id: str
    tenant: str
    sha256: str
    uri: str
    size: int
    kind: Literal["base", "checkpoint", "state"]
    round_number: int
    attempt: int
    exchange: str
    parents: list[str]
    metrics: dict[str, float]
    channels: list[str]
    revoked_at: datetime | None
    revoked_reason: str
    recorded_at: datetime


class ArtifactRecords(View):
    """The same bytes may have been recorded more than once."""

    sha256: str
    records: list[Artifact]


class Ref(View):
    sha256: str
    uri: str | None = None


class Federation(FederationSummary):
    """Everything of one federation. `metrics` are of the newest evaluated checkpoint."""

    waiting_for: str | None
    problems: list[dict[str, str]]
    spec: dict[str, Any] | None
    join_deadline_at: datetime | None
    pause_expires_at: datetime | None
    base: Ref | None
    final: Ref | None
    metrics: dict[str, float]
    rounds: list[Round]
    clients: list[Membership]
    artifacts: list[Artifact]


class HistoryEvent(View):
    """An event as it was recorded. `position` is its place in this history: `after` takes it.

    `actor`: who gave the command that it came of, where a person did.
    """

    position: int
    id: str
    type: str
    stream: str
    version: int
    recorded_at: datetime
    causation_id: str | None
    actor: str | None = None
    data: dict[str, Any]


class History(View):
    events: list[HistoryEvent]
    next_after: int


class Folded(View):
    client_id: str
    place: int
    sha256: str | None
    weight: int


class LineageNode(View):
    sha256: str
    kind: Literal["base", "checkpoint"]
    round_number: int
    uri: str
    size: int
    parents: list[str]
    metrics: dict[str, float]
    folded: list[Folded]
    recorded_at: datetime


class Lineage(View):
    """From the base to the newest checkpoint. Complete: no parent on the way is missing."""

    federation_id: str
    is_complete: bool
    checkpoints: list[LineageNode]


class Client(View):
    client_id: str
    tenant: str
    status: Literal["invited", "enrolled", "revoked"]
    tags: list[str]
    reason: str
    n_federations: int
    n_joined: int = 0
    n_dropped: int = 0
    invited_at: datetime | None
    invite_expires_at: datetime | None
    enrolled_at: datetime | None
    certificate_expires_at: datetime | None
    revoked_at: datetime | None


class ClientList(View):
    clients: list[Client]
    next_cursor: str | None = None


class LogLine(View):
    """`left-out`: lines are missing here, `text` says how many. `kept`: the site keeps them."""

    position: int
    client_id: str
    label: str | None
    at: datetime
    kind: Literal["line", "left-out", "kept"]
    text: str


class LogClient(View):
    client_id: str
    label: str | None
    keeps_lines: bool


class ClientLogs(View):
    """`is_open`: more may come."""

    federation_id: str
    lines: list[LogLine]
    next_after: int
    is_open: bool
    clients: list[LogClient]


class ServerLine(View):
    """`kind`: `line`, or `left-out` for what is told of the process and not by it."""

    position: int
    at: datetime
    kind: str
    text: str


class ServerLogs(View):
    """Ask again with `after=next_after`; nothing more comes once it is not `is_open`."""

    federation_id: str
    lines: list[ServerLine]
    next_after: int
    is_open: bool
