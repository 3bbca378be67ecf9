"""An exchange as it is asked for: everything it needs, recorded in the event. Pure."""

from dataclasses import dataclass, field
from datetime import datetime

from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.policy import Budget
from flowerbed.contracts.round import RoundEvaluationStarted, RoundStarted
from flowerbed.contracts.spec import FederationSpec
from flowerbed.contracts.strategies import CYCLIC, LABEL_ENTROPY
from flowerbed.contracts.values import ArtifactRef, Scalar
from flowerbed.orchestrator.cohorts import (
    cohort,
    everybody,
    idle,
    in_turn,
    round_seed,
    share,
    sizes,
)
from flowerbed.orchestrator.state import Cohort, Owed, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a training exchange made. `owed`: what goes on while its checkpoint is evaluated.

    `whole`: the base that the federation started from.
    """

    checkpoint: ArtifactRef
    n_updates: int
    training: dict[str, float] = field(default_factory=dict)
    owed: Owed = ()
    whole: ArtifactRef | None = None


def training_exchange(
    federation_id: str,
    spec: FederationSpec,
    place: tuple[int, int],
    base: ArtifactRef,
    pool: Pool,
    at: datetime,
    *,
    owed: Owed = (),
    asked_before: Cohort = (),
    whole: ArtifactRef | None = None,
) -> RoundStarted:
    """`place` is (round number, attempt).

    `owed`: work of earlier rounds that may count here; its clients are not asked.
    `asked_before`: the cohort of the attempt that failed, to be asked again.
    `whole`: the base that the federation started from.
    """
    round_number, attempt = place
    policy, budget = spec.spec.round_policy, Budget.of(spec.spec.round_policy)
    free = idle(pool, owed)
    if spec.spec.strategy.name == CYCLIC:
        free = in_turn(free, round_number)
    counts = sizes(spec.spec, n_joined=len(pool), n_idle=len(free), n_owed=len(owed))
    seed = round_seed(spec, round_number)
    return RoundStarted(
        federation_id=federation_id,
        round_number=round_number,
        attempt=attempt,
        base=base,
        cohort=cohort(asked_before, free, counts.n_asked, seed, attempt),
        goal=counts.goal,
        n_required=counts.n_required,
        deadline_at=at + budget.exchange,
        seed=seed,
        config=_config(spec, round_number),
        owed=owed,
        staleness_exponent=policy.staleness_exponent,
        work_until=at + budget.late_work if policy.counts_late else None,
        folds_in_order="arrival" if policy.is_buffered else "cohort",
        frozen=_frozen(spec, base, whole),
    )


def evaluation_exchange(
    federation_id: str,
    spec: FederationSpec,
    place: tuple[int, int],
    trained: Trained,
    pool: Pool,
    at: datetime,
) -> RoundEvaluationStarted:
    """Everybody joined evaluates, but for those who are still at the work they owe."""
    round_number, attempt = place
    seed = derive_seed(spec.spec.train.seed, "evaluation", round_number)
    policy, free = spec.spec.round_policy, idle(pool, trained.owed)
    return RoundEvaluationStarted(
        federation_id=federation_id,
        round_number=round_number,
        attempt=attempt,
        base=trained.checkpoint,
        cohort=everybody(free, seed),
        goal=len(free),
        n_required=share(policy.quorum, len(free)),
        deadline_at=at + Budget.of(policy).exchange,
        seed=seed,
        config=_config(spec, round_number),
        n_updates=trained.n_updates,
        training=trained.training,
        owed=trained.owed,
        frozen=_frozen(spec, trained.checkpoint, trained.whole),
    )


def _frozen(
    spec: FederationSpec, base: ArtifactRef, whole: ArtifactRef | None
) -> ArtifactRef | None:
    """Where the tensors are that the base has not."""
    return whole if spec.spec.update.trainable and whole != base else None


def _config(spec: FederationSpec, round_number: int) -> dict[str, Scalar]:
    """Keys as Flower apps spell them; FedProx adds `proximal-mu`, as Flower's own strategy does,
    and weighting by entropy asks for it."""
    train = spec.spec.train
    config: dict[str, Scalar] = {
        **{key.replace("_", "-"): value for key, value in train.app_parameters.items()},
        "server-round": round_number,
        "local-epochs": train.local_epochs,
        "batch-size": train.batch_size,
        "learning-rate": train.learning_rate,
    }
    if spec.spec.strategy.weighting.entropy:
        config[LABEL_ENTROPY] = True
    if (mu := spec.spec.strategy.proximal_mu) is not None:
        config["proximal-mu"] = mu
    return config
