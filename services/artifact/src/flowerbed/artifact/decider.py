"""A federation's lineage: which artifacts it made, which one each channel points to.

    record ──> known ── promote ──> the current one of a channel
                 └───── revoke ───> revoked (for good; its bytes and history stay)

Stream `lineage-<federation_id>`. Pure code.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeAlias, assert_never

from flowerbed.contracts.artifact import ArtifactPromoted, ArtifactRecorded, ArtifactRevoked
from flowerbed.contracts.values import ArtifactKind, ArtifactRef, Exchange, Sha256
from flowerbed.events.decider import Decider
from flowerbed.events.errors import NotFound, Rejected

LineageEvent: TypeAlias = ArtifactRecorded | ArtifactPromoted | ArtifactRevoked


def stream_of(federation_id: str) -> str:
    return f"lineage-{federation_id}"


# --- commands ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordArtifact:
    """Its bytes were read back and are what they are said to be.

    `owing`: of a checkpoint, the work ids that its aggregate closed without.
    """

    federation_id: str
    round_number: int
    attempt: int
    exchange: Exchange
    kind: ArtifactKind
    artifact: ArtifactRef
    parents: tuple[Sha256, ...] = ()
    n_updates: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    owing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteArtifact:
    federation_id: str
    sha256: Sha256
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeArtifact:
    federation_id: str
    sha256: Sha256
    reason: str


LineageCommand: TypeAlias = RecordArtifact | PromoteArtifact | RevokeArtifact

# --- state ------------------------------------------------------------------

Place: TypeAlias = tuple[int, int, str, str]
"""Round, attempt, exchange, kind: there is one artifact at each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    artifacts: dict[Place, Sha256] = field(default_factory=dict)
    channels: dict[str, Sha256] = field(default_factory=dict)
    revoked: frozenset[Sha256] = frozenset()


# --- errors -----------------------------------------------------------------


class ArtifactDiffers(Rejected):
    code: ClassVar[str] = "artifact-differs"


class ArtifactIsRevoked(Rejected):
    code: ClassVar[str] = "artifact-revoked"


class ArtifactUnknown(NotFound):
    code: ClassVar[str] = "artifact-unknown"


# --- decide -----------------------------------------------------------------


def decide(state: Lineage, command: LineageCommand) -> list[LineageEvent]:
    match command:
        case RecordArtifact():
            return _record(state, command)
        case PromoteArtifact():
            return _promote(state, command)
        case RevokeArtifact():
            return _revoke(state, command)
        case _:
            assert_never(command)


def _record(state: Lineage, command: RecordArtifact) -> list[LineageEvent]:
    place = (command.round_number, command.attempt, command.exchange, command.kind)
    sha256 = command.artifact.sha256
    match state.artifacts.get(place):
        case None:
            return [
                ArtifactRecorded(
                    federation_id=command.federation_id,
                    round_number=command.round_number,
                    attempt=command.attempt,
                    exchange=command.exchange,
                    kind=command.kind,
                    artifact=command.artifact,
                    parents=command.parents,
                    n_updates=command.n_updates,
                    metrics=command.metrics,
                    owing=command.owing,
                )
            ]
        case there if there == sha256:
            return []
        case there:
            raise ArtifactDiffers(
                f"round {command.round_number} attempt {command.attempt} already has"
                f" {command.kind} {there}, not {sha256}"
            )


def _promote(state: Lineage, command: PromoteArtifact) -> list[LineageEvent]:
    _known(state, command.sha256)
    if command.sha256 in state.revoked:
        raise ArtifactIsRevoked(f"artifact {command.sha256} is revoked")
    if state.channels.get(command.channel) == command.sha256:
        return []
    return [
        ArtifactPromoted(
            federation_id=command.federation_id, sha256=command.sha256, channel=command.channel
        )
    ]


def _revoke(state: Lineage, command: RevokeArtifact) -> list[LineageEvent]:
    _known(state, command.sha256)
    if command.sha256 in state.revoked:
        return []
    return [
        ArtifactRevoked(
            federation_id=command.federation_id, sha256=command.sha256, reason=command.reason
        )
    ]


def _known(state: Lineage, sha256: Sha256) -> None:
    if sha256 not in state.artifacts.values():
        raise ArtifactUnknown(f"no artifact {sha256} in this federation")


# --- evolve -----------------------------------------------------------------


def evolve(state: Lineage, event: LineageEvent) -> Lineage:
    match event:
        case ArtifactRecorded():
            place = (event.round_number, event.attempt, event.exchange, event.kind)
            return replace(state, artifacts={**state.artifacts, place: event.artifact.sha256})
        case ArtifactPromoted():
            return replace(state, channels={**state.channels, event.channel: event.sha256})
        case ArtifactRevoked():
            channels = {name: to for name, to in state.channels.items() if to != event.sha256}
            return replace(state, channels=channels, revoked=state.revoked | {event.sha256})
        case _:
            assert_never(event)


lineage: Decider[Lineage, LineageCommand, LineageEvent] = Decider(Lineage(), decide, evolve)
