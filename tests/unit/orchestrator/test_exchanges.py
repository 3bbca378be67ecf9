"""Cohorts are seeded, stable between runs, and sized by the policy."""

from typing import Any

from flowerbed.orchestrator.exchanges import Trained, evaluation_exchange, training_exchange
from flowerbed.orchestrator.state import Member, Pool
from tests.support.federations import BASE, FED, NOON, pool, spec_of

TEN = pool(*"abcdefghij")


def cohort(p: Pool, *, number: int = 1, attempt: int = 1, **spec: object) -> list[str]:
    started = training_exchange(FED, spec_of(**spec), (number, attempt), BASE, p, NOON)
    return [member.client_id for member in started.cohort]


def test_a_fraction_of_the_pool_is_the_goal_and_at_least_min_clients() -> None:
    assert len(cohort(TEN, client_fraction=0.3)) == 3
    assert len(cohort(TEN, client_fraction=0.01)) == 2


def test_over_selection_asks_more_than_the_goal_and_never_more_than_there_are() -> None:
    policy = {"over_select": 1.5, "quorum": 0.5}
    started = training_exchange(
        FED, spec_of(client_fraction=0.4, round_policy=policy), (1, 1), BASE, TEN, NOON
    )
    assert (len(started.cohort), started.goal, started.n_required) == (6, 4, 2)
    assert len(cohort(TEN, client_fraction=1.0, round_policy=policy)) == 10


def test_the_same_datasets_give_the_same_cohort_and_seeds_whatever_the_clients_are_called() -> None:
    renamed = tuple(
        Member(
            client_id=f"x{i}", lease_id=f"y{i}", lease_epoch=3, dataset_sha256=one.dataset_sha256
        )
        for i, one in enumerate(reversed(TEN))
    )
    spec = spec_of(client_fraction=0.5)
    first = training_exchange(FED, spec, (2, 1), BASE, TEN, NOON)
    second = training_exchange("fed-other", spec, (2, 1), BASE, renamed, NOON)
    names = {one.client_id: one.dataset_sha256 for one in (*TEN, *renamed)}
    assert [names[one.client_id] for one in first.cohort] == [
        names[one.client_id] for one in second.cohort
    ]
    assert [one.seed for one in first.cohort] == [one.seed for one in second.cohort]


def test_rounds_draw_different_cohorts_and_seeds() -> None:
    drawn = {tuple(cohort(TEN, number=number, client_fraction=0.3)) for number in range(1, 12)}
    assert len(drawn) > 3
    one = training_exchange(FED, spec_of(), (1, 1), BASE, TEN, NOON)
    two = training_exchange(FED, spec_of(), (2, 1), BASE, TEN, NOON)
    assert len({m.seed for m in (*one.cohort, *two.cohort)}) == 20


def test_another_attempt_keeps_each_places_seed() -> None:
    one = training_exchange(FED, spec_of(), (1, 1), BASE, TEN, NOON)
    two = training_exchange(FED, spec_of(), (1, 2), BASE, TEN, NOON)
    assert [m.seed for m in one.cohort] == [m.seed for m in two.cohort]


def test_the_app_is_told_its_own_parameters_and_fedprox_its_mu() -> None:
    spec = spec_of(
        strategy={"name": "fedprox", "params": {"proximal_mu": 0.1}},
        train={"local_epochs": 3, "weight_decay": 0.5},
    )
    config = training_exchange(FED, spec, (4, 1), BASE, TEN, NOON).config
    assert config == {
        "server-round": 4, "local-epochs": 3, "batch-size": 32, "learning-rate": 0.01,
        "proximal-mu": 0.1, "weight-decay": 0.5,
    }  # fmt: skip


def test_the_app_is_asked_for_its_labels_entropy_where_updates_weigh_by_it() -> None:
    spec = spec_of(strategy={"weighting": {"entropy": True}})
    assert training_exchange(FED, spec, (1, 1), BASE, TEN, NOON).config["label-entropy"] is True
    assert "label-entropy" not in training_exchange(FED, spec_of(), (1, 1), BASE, TEN, NOON).config


def test_under_fedxgbcyclic_the_joined_train_in_turn_one_a_round() -> None:
    asked: dict[str, Any] = {"strategy": {"name": "fedxgbcyclic"}}
    three = pool(*"abc")
    turns = [cohort(three, number=number, **asked) for number in range(1, 5)]
    assert [len(one) for one in turns] == [1, 1, 1, 1]
    assert sorted(name for one in turns[:3] for name in one) == [one.client_id for one in three]
    assert turns[3] == turns[0] == cohort(three, attempt=2, **asked)
    started = training_exchange(FED, spec_of(**asked), (1, 1), BASE, three, NOON)
    assert (started.goal, started.n_required) == (1, 1)


def test_everybody_joined_evaluates() -> None:
    trained = Trained(checkpoint=BASE, n_updates=2)
    started = evaluation_exchange(FED, spec_of(client_fraction=0.2), (1, 1), trained, TEN, NOON)
    assert (len(started.cohort), started.goal, started.n_required) == (10, 10, 10)
