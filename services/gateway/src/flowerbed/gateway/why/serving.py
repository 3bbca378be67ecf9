"""What a federation waits for whose app's whole ServerApp runs. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from flowerbed.contracts.server_app import (
    MessageAnswered,
    MessagesPulled,
    MessagesPushed,
    ServerAppCompleted,
    ServerAppRestarted,
)
from flowerbed.events.recorded import Recorded
from flowerbed.gateway.why.answer import Answer, Task, on_client, to_act
from flowerbed.gateway.why.facts import Facts, Serving, Work
from flowerbed.gateway.why.view import WaitedFor
from flowerbed.gateway.why.words import ago, counted, named

FAILS = "the federation fails with app-failed"


def with_messages(
    stage: Serving, journal: Sequence[Recorded[Any]], leases: Sequence[Recorded[Any]]
) -> Serving:
    """`journal`: the newest of what the ServerApp did, in order."""
    for one in journal:
        at = one.recorded_at
        match one.event:
            case MessagesPushed() as event:
                stage = _pushed(stage, event, at)
            case MessagesPulled() as event:
                work = (one for one in stage.work if one.round_number not in event.closes)
                stage = replace(stage, since=at, work=tuple(work))
            case ServerAppRestarted() as event:
                stage = replace(stage, restarted_at=at)
            case ServerAppCompleted():
                stage = replace(stage, since=at, work=(), has_ended=True)
            case _:
                pass
    answered = {
        (one.event.round_number, one.event.client_id): one.recorded_at
        for one in leases
        if isinstance(one.event, MessageAnswered)
    }
    work = (
        replace(one, reported_at=answered.get((one.round_number, one.client_id)))
        for one in stage.work
    )
    return replace(stage, work=tuple(work))


def _pushed(stage: Serving, event: MessagesPushed, at: datetime) -> Serving:
    """Of each client its newest message: the app may have given up on the ones before."""
    asked = {one.client_id for one in event.cohort}
    work = tuple(
        Work(client_id=one.client_id, round_number=event.round_number, asked_at=at)
        for one in event.cohort
    )
    open_work = (*(one for one in stage.work if one.client_id not in asked), *work)
    return replace(
        stage, number=event.round_number, work=open_work, since=at, until=event.deadline_at
    )


def serving(facts: Facts, stage: Serving, at: datetime) -> Answer:
    """Nodes that have not answered, or else the app itself."""
    if stage.has_ended:
        task = Task(service="artifact", doing="has not read the checkpoint", since=stage.since)
        what = "the artifact service to read the ServerApp's checkpoint back"
        return to_act(facts, at, task, code="server-app-end-due", what=what)
    missing = [one for one in stage.work if one.reported_at is None]
    if not missing:
        return _on_main(facts, stage, at)
    n, numbers = len(stage.work), sorted({one.round_number for one in missing})
    exchanges = f"exchange{'' if len(numbers) == 1 else 's'} {named([str(one) for one in numbers])}"
    return Answer(
        code="messages-to-answer",
        what=f"replies to {exchanges} of the app's ServerApp: {n - len(missing)} of {n} have come",
        on=tuple(_on_work(facts, one, at) for one in missing),
        since=stage.since,
        until=stage.until,
        then="the ServerApp is told that there is no reply",
        hints=("flowerbed client list",),
    )


def _on_main(facts: Facts, stage: Serving, at: datetime) -> Answer:
    doing = f"has done {counted(stage.number, 'exchange')}"
    if stage.restarted_at is not None:
        doing += f"; its process was started again{ago(stage.restarted_at, at)}"
    main = WaitedFor(kind="service", id="aggregator", doing=doing, since=stage.since)
    return Answer(
        code="server-app",
        what="the app's own ServerApp, to send messages or to end",
        on=(main,),
        since=stage.since,
        until=None,
        then=FAILS,
        hints=(f"flowerbed federation logs {facts.federation_id} --server",),
    )


def _on_work(facts: Facts, one: Work, at: datetime) -> WaitedFor:
    client = facts.client(one.client_id)
    doing = f"was asked{ago(one.asked_at, at)}" if one.asked_at else "was asked"
    if client is None:
        return WaitedFor(kind="client", id=one.client_id, doing=doing, since=one.asked_at)
    if not client.is_joined:
        doing += f"; it is {client.status}"
    return on_client(client, doing, one.asked_at)
