"""What a whole ServerApp did is recorded once, and answers it when it is run again."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from flowerbed.aggregator.journal import (
    CompleteApp,
    FailApp,
    PullReplies,
    PushMessages,
    RestartApp,
    journal,
)
from flowerbed.aggregator.replay import Difference, Nothing, Replay
from flowerbed.contracts.aggregate import AggregateCompleted, AggregateFailed
from flowerbed.contracts.server_app import (
    MessagesPulled,
    MessagesPushed,
    PulledReply,
    PushedMessage,
    ServerAppCompleted,
    ServerAppRestarted,
)
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.testing import given
from flowerbed.flower_apps.grid_pipe import Pull, Push, Sent

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
FED = "fed-1"
A, B = "a" * 64, "b" * 64


def ref(sha256: str = A) -> ArtifactRef:
    return ArtifactRef(uri="s3://b/k", sha256=sha256, size=3)


def message(place: int, sha256: str = A, kind: str = "train") -> PushedMessage:
    return PushedMessage(
        client_id=f"c{place}", lease_id=f"l{place}", lease_epoch=1, seed=place, place=place,
        node_id=10 + place, message_id=f"m{place}", message_type=kind, ttl=60.0,
        content=ref(sha256),
    )  # fmt: skip


def pushed(number: int = 1, sha256: str = A, *, is_main: bool = True) -> MessagesPushed:
    return MessagesPushed(
        federation_id=FED, round_number=number, cohort=(message(0, sha256), message(1, sha256)),
        n_nodes=2, deadline_at=NOON, at=5.0, is_main=is_main,
    )  # fmt: skip


def pulled(number: int = 1, n_empty: int = 0, *, is_main: bool = True) -> MessagesPulled:
    reply = PulledReply(message_id="m0", node_id=10, content=ref(B))
    return MessagesPulled(
        federation_id=FED, round_number=number, replies=(reply,), closed=(number,), at=6.0,
        n_empty=n_empty, is_main=is_main,
    )  # fmt: skip


def push(sha256: str = A, *, is_main: bool = True, kind: str = "train", n: int = 2) -> Push:
    sent = tuple(
        Sent(node_id=10 + place, message_type=kind, group_id="", ttl=60.0, sha256=sha256, size=3)
        for place in range(n)
    )
    return Push(call=1, at=1.0, messages=sent, is_main=is_main)


def pull(*ids: str, n_empty: int = 0, waits: bool = False, is_main: bool = True) -> Pull:
    return Pull(call=1, at=1.0, ids=ids, waits=waits, n_empty=n_empty, is_main=is_main)


PUSH = PushMessages(
    federation_id=FED, cohort=(message(0), message(1)), n_nodes=2, deadline_at=NOON, at=5.0,
    n_empty=0, is_main=True,
)  # fmt: skip
PULL = PullReplies(
    federation_id=FED, round_number=1, replies=pulled().replies, n_open=0, closed=(1,), at=6.0,
    n_empty=0, is_main=True,
)  # fmt: skip
COMPLETE = CompleteApp(federation_id=FED, checkpoint=ref(B), arrays_from="result", app=A)


def test_each_push_is_the_next_exchange() -> None:
    given(journal).when(PUSH).then(pushed(1))
    given(journal, pushed(1), pulled(1)).when(PUSH).then(pushed(2))


def test_what_is_handed_over_is_recorded() -> None:
    given(journal, pushed()).when(PULL).then(pulled())


def test_a_new_attempt_is_counted_until_something_new_happens() -> None:
    restart = RestartApp(federation_id=FED, reason="killed by signal 9")
    told = ServerAppRestarted(federation_id=FED, attempt=2, reason=restart.reason, n_answered=1)
    given(journal, pushed()).when(restart).then(told)
    assert journal.replay([pushed(), told]).n_restarts == 1
    assert journal.replay([pushed(), told, pulled()]).n_restarts == 0


def test_the_end_has_the_app_for_a_parent_and_the_last_exchange_for_a_round() -> None:
    decided = journal.decide(journal.replay([pushed(1), pushed(2)]), COMPLETE)
    completed, aggregate = decided
    assert isinstance(completed, ServerAppCompleted) and completed.n_exchanges == 2
    assert isinstance(aggregate, AggregateCompleted)
    assert (aggregate.round_number, aggregate.parents) == (2, (A,))


def test_after_the_end_nothing_happens_any_more() -> None:
    over = journal.decide(journal.initial, COMPLETE)
    for command in (PUSH, PULL, COMPLETE, FailApp(federation_id=FED, code="x", reason="y")):
        given(journal, *over).when(command).then_nothing()


def test_a_failure_says_why() -> None:
    failed = AggregateFailed(
        federation_id=FED, round_number=1, attempt=1, exchange="train", code="x", reason="y"
    )
    given(journal).when(FailApp(federation_id=FED, code="x", reason="y")).then(failed)


def test_the_same_calls_get_the_same_answers_and_then_new_ones() -> None:
    replay = Replay([pushed(), pulled(n_empty=2)])
    call = push()
    assert replay.push(call, call.messages) == pushed()
    assert replay.pull(pull("m0", "m1", n_empty=0)) == Nothing()
    assert replay.pull(pull("m0", "m1", n_empty=1)) == Nothing()
    assert replay.pull(pull("m0", "m1", n_empty=2)) == pulled(n_empty=2)
    assert replay.is_over
    assert replay.push(call, call.messages) is None
    assert replay.pull(pull("m0", waits=True)) is None
    replay.end()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (push(B), "exchange 1, message 1 of 2 .train to node 10. has another content"),
        (push(kind="query"), "exchange 1, message 1 of 2 has type query, and was train"),
        (push(n=1), "exchange 1: it sends 1 messages, and sent 2"),
    ],
)
def test_another_message_than_before_is_told(call: Push, told: str) -> None:
    with pytest.raises(Difference, match=told):
        Replay([pushed()]).push(call, call.messages)


def test_the_two_contents_that_differ_are_named() -> None:
    call = push(B)
    with pytest.raises(Difference) as found:
        Replay([pushed()]).push(call, call.messages)
    assert (found.value.was, found.value.now) == (A, B)


def test_another_kind_of_call_than_before_is_told() -> None:
    call = push()
    with pytest.raises(Difference, match="it sends messages where it had been handed 1 replies"):
        Replay([pulled()]).push(call, call.messages)
    with pytest.raises(Difference, match="it asks for replies where it had sent the 2 messages"):
        Replay([pushed()]).pull(pull("m0"))
    with pytest.raises(Difference, match="it asks for replies to other messages"):
        Replay([pulled()]).pull(pull("m7"))
    with pytest.raises(Difference, match="it ends where it had sent the 2 messages of exchange 1"):
        Replay([pushed()]).end()


def test_threads_find_their_own_in_any_order() -> None:
    first, second = pushed(1, A, is_main=False), pushed(2, B, is_main=False)
    replay = Replay([first, second, pulled(2, is_main=False)])
    call = push(B, is_main=False)
    assert replay.push(call, call.messages) == second
    assert replay.pull(pull("m0", waits=True, is_main=False)) == pulled(2, is_main=False)
    new = push("c" * 64, is_main=False)
    assert replay.push(new, new.messages) is None
    call = push(A, is_main=False)
    assert replay.push(call, call.messages) == first
    assert replay.is_over


def test_a_restart_does_not_change_what_was_recorded() -> None:
    state = journal.replay([pushed(), pulled()])
    told = ServerAppRestarted(federation_id=FED, attempt=2, reason="x", n_answered=2)
    assert replace(journal.evolve(state, told), n_restarts=0, n_attempts=1) == state
