"""A whole ServerApp: started once, and given up when nothing is heard of it. Pure."""

from datetime import datetime

from flowerbed.contracts.federation import FederationFailed
from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.policy import Budget
from flowerbed.contracts.server_app import ServerAppExtended, ServerAppStarted
from flowerbed.contracts.spec import FederationSpec
from flowerbed.orchestrator.cohorts import everybody
from flowerbed.orchestrator.evolve import OrchestratorEvent
from flowerbed.orchestrator.state import Pool, Serving, patience, policy_of


def serving(federation_id: str, spec: FederationSpec, pool: Pool, at: datetime) -> ServerAppStarted:
    """All who are joined now are its nodes, for good."""
    seed = derive_seed(spec.spec.train.seed, "server-app")
    return ServerAppStarted(
        federation_id=federation_id,
        nodes=everybody(pool, seed),
        seed=seed,
        deadline_at=at + Budget.of(spec.spec.round_policy).exchange,
    )


def overdue(state: Serving, heard: datetime | None, at: datetime) -> list[OrchestratorEvent]:
    """`heard`: when its newest messages run out. It has as long again to send the next."""
    policy = policy_of(state)
    if heard is not None:
        deadline_at = heard + Budget.of(policy).exchange
        if at < deadline_at + patience(policy):
            federation_id = state.federation_id
            return [ServerAppExtended(federation_id=federation_id, deadline_at=deadline_at)]
    told = "the aggregator has neither ended the ServerApp nor sent its next messages in time"
    return [
        FederationFailed(federation_id=state.federation_id, code="aggregator-silent", reason=told)
    ]
