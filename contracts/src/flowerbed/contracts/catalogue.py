"""Every event there is, by its owner."""

from flowerbed.contracts import (
    aggregate,
    apps,
    artifact,
    client,
    federation,
    round,
    server_app,
    update,
)
from flowerbed.contracts.event import Event
from flowerbed.contracts.topology import STREAMS

EVENTS: tuple[type[Event], ...] = (
    federation.FederationCreated,
    federation.FederationRejected,
    federation.FederationStarted,
    federation.FederationPaused,
    federation.FederationResumed,
    federation.FederationPolicyChanged,
    federation.FederationCompleted,
    federation.FederationFailed,
    federation.FederationCancelled,
    round.RoundStarted,
    round.RoundMemberReplaced,
    round.RoundEvaluationStarted,
    round.RoundCompleted,
    round.RoundFailed,
    client.ClientInvited,
    client.ClientEnrolled,
    client.ClientCertificateRenewed,
    client.ClientRevoked,
    client.ClientLeaseIssued,
    client.ClientJoined,
    client.ClientDeclined,
    client.ClientDropped,
    client.ClientReleased,
    update.UpdateSubmitted,
    update.UpdateFailed,
    update.UpdateAccepted,
    update.UpdateRejected,
    update.UpdateQuarantined,
    aggregate.AggregateCompleted,
    aggregate.AggregateFailed,
    artifact.ArtifactRecorded,
    artifact.ArtifactPromoted,
    artifact.ArtifactRevoked,
    apps.AppPushed,
    server_app.ServerAppStarted,
    server_app.ServerAppExtended,
    server_app.ServerAppRestarted,
    server_app.MessagesPushed,
    server_app.MessageAnswered,
    server_app.MessagesPulled,
    server_app.ServerAppCompleted,
)


def owned_events(service: str) -> tuple[type[Event], ...]:
    """The events that this service alone may record."""
    types = {name for stream in STREAMS if stream.owner == service for name in stream.types}
    return tuple(event for event in EVENTS if event.type in types)
