"""Who is asked in an exchange, and with what: pure, seeded, and recorded in the event."""

import math
import random
from datetime import datetime, timedelta
from fractions import Fraction

from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.round import CohortMember, RoundEvaluationStarted, RoundStarted
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.values import ArtifactRef, Scalar
from flowerbed.orchestrator.state import Pool


def can_open(spec: FederationSpec, pool: Pool) -> bool:
    return len(pool) >= spec.spec.min_clients


def training_exchange(
    federation_id: str,
    spec: FederationSpec,
    place: tuple[int, int],
    base: ArtifactRef,
    pool: Pool,
    at: datetime,
) -> RoundStarted:
    """`place` is (round number, attempt). The goal is a fraction of the pool, at least min_clients.

    A cohort is a seeded sample of the pool; over-selection asks `over_select` times the goal.
    """
    round_number, attempt = place
    policy = spec.spec.round_policy
    goal = max(spec.spec.min_clients, _share(spec.spec.client_fraction, len(pool)))
    n_asked = min(len(pool), _share(policy.over_select, goal))
    seed = derive_seed(spec.spec.train.seed, "round", round_number)
    chosen = _sample(pool, n_asked, derive_seed(seed, "cohort", attempt))
    return RoundStarted(
        federation_id=federation_id,
        round_number=round_number,
        attempt=attempt,
        base=base,
        cohort=_cohort(chosen, seed),
        goal=goal,
        n_required=_share(policy.quorum, goal),
        deadline_at=at + timedelta(seconds=policy.deadline_seconds),
        seed=seed,
        config=_config(spec, round_number),
    )


def evaluation_exchange(
    federation_id: str,
    spec: FederationSpec,
    place: tuple[int, int],
    trained: tuple[ArtifactRef, int, dict[str, float]],
    pool: Pool,
    at: datetime,
) -> RoundEvaluationStarted:
    """Everybody joined evaluates. `trained`: new checkpoint, updates in it, training metrics."""
    round_number, attempt = place
    checkpoint, n_updates, training = trained
    seed = derive_seed(spec.spec.train.seed, "evaluation", round_number)
    policy = spec.spec.round_policy
    return RoundEvaluationStarted(
        federation_id=federation_id,
        round_number=round_number,
        attempt=attempt,
        base=checkpoint,
        cohort=_cohort(_stable(pool), seed),
        goal=len(pool),
        n_required=_share(policy.quorum, len(pool)),
        deadline_at=at + timedelta(seconds=policy.deadline_seconds),
        seed=seed,
        config=_config(spec, round_number),
        n_updates=n_updates,
        training=training,
    )


def _share(factor: float, n: int) -> int:
    """At least so many, in decimal: as a binary float 0.07 of 100 is a little more than 7."""
    return math.ceil(Fraction(str(factor)) * n)


def _stable(pool: Pool) -> Pool:
    """In an order that two runs on the same datasets share; client ids differ between runs."""
    return tuple(sorted(pool, key=lambda member: (member.dataset_sha256, member.client_id)))


def _sample(pool: Pool, n: int, seed: int) -> Pool:
    stable = _stable(pool)
    places = sorted(random.Random(seed).sample(range(len(stable)), n))
    return tuple(stable[place] for place in places)


def _cohort(members: Pool, seed: int) -> tuple[CohortMember, ...]:
    return tuple(
        CohortMember(
            client_id=member.client_id,
            lease_id=member.lease_id,
            lease_epoch=member.lease_epoch,
            seed=derive_seed(seed, "client", place),
        )
        for place, member in enumerate(members)
    )


def _config(spec: FederationSpec, round_number: int) -> dict[str, Scalar]:
    """Keys as Flower apps spell them; FedProx adds `proximal-mu`, as Flower's own strategy does."""
    train = spec.spec.train
    config: dict[str, Scalar] = {
        **{key.replace("_", "-"): value for key, value in train.app_parameters.items()},
        "server-round": round_number,
        "local-epochs": train.local_epochs,
        "batch-size": train.batch_size,
        "learning-rate": train.learning_rate,
    }
    if (mu := spec.spec.strategy.proximal_mu) is not None:
        config["proximal-mu"] = mu
    return config
