"""In an exchange: the clients work, the aggregator judges and folds, then others move on."""

from dataclasses import dataclass
from datetime import datetime

from flowerbed.gateway.why.answer import Answer, Task, absence, on_client, to_act
from flowerbed.gateway.why.facts import Client, Exchange, Facts, Work
from flowerbed.gateway.why.view import WaitedFor
from flowerbed.gateway.why.words import ago, counted, moment, named


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The codes of one kind of exchange, and its words."""

    clients: str
    screening: str
    closing: str
    verb: str
    answer: str


TRAIN = Names(
    clients="clients-to-train",
    screening="updates-to-screen",
    closing="fold-due",
    verb="training",
    answer="update",
)
EVALUATE = Names(
    clients="clients-to-evaluate",
    screening="evaluations-to-screen",
    closing="evaluation-close-due",
    verb="evaluation",
    answer="evaluation",
)


def exchange(facts: Facts, stage: Exchange, at: datetime) -> Answer:
    if stage.closed_at is not None:
        return _closed(facts, stage, at)
    if at >= stage.deadline_at:
        return _past_deadline(facts, stage, at)
    if _is_decided(stage):
        return _to_close(facts, stage, at)
    silent = [one for one in stage.work if not one.verdict and one.reported_at is None]
    if not silent:
        return _to_screen(facts, stage, at)
    return _to_answer(facts, stage, silent, at)


# --- open -------------------------------------------------------------------


def _to_answer(facts: Facts, stage: Exchange, silent: list[Work], at: datetime) -> Answer:
    names = _names(stage)
    is_buffer = stage.exchange == "train" and facts.policy.is_buffered
    gone = [one for one in silent if _is_gone(facts, one)]
    code = "updates-to-fill-buffer" if is_buffer else names.clients
    what = f"{stage.place}: {_wanted(stage, silent, is_buffer)}"
    if len(gone) == len(silent) and stage.exchange == "train":
        code = "client-dropped"
        what += ", gone" if len(gone) == 1 else ", all gone"
    screening = _screening(stage)
    is_behind = screening is not None and screening.is_overdue(facts, at)
    on = tuple(_on(facts, stage, one, at) for one in silent)
    if is_behind and screening is not None:
        on = (*on, screening.waited_for(facts, at))
    return Answer(
        code=code,
        what=what,
        on=on,
        since=stage.started_at,
        until=stage.deadline_at,
        then=_at_deadline(facts, stage),
        is_overdue=is_behind,
        hints=(
            "flowerbed client status",
            *(screening.hints(facts, at) if screening is not None else ()),
        ),
    )


def _wanted(stage: Exchange, silent: list[Work], is_buffer: bool) -> str:
    who = named([one.client_id for one in silent])
    if stage.goal >= len(stage.work) and not is_buffer:
        return f"{len(silent)} of {len(stage.work)} clients ({who})"
    answers, clients = counted(stage.goal, _names(stage).answer), counted(len(silent), "client")
    return f"{stage.n_accepted} of {answers} accepted, {clients} ({who}) may still send one"


def _on(facts: Facts, stage: Exchange, one: Work, at: datetime) -> WaitedFor:
    client = facts.client(one.client_id) or Client(client_id=one.client_id, status="joined")
    ordered = f"was ordered {_names(stage).verb}{ago(one.asked_at, at)} and has not answered"
    if one.is_owed:
        ordered = f"still works for round {one.round_number}, whose update may count in this one"
    if not client.is_joined:
        return on_client(client, f"{absence(client, at)}; {_place(facts, stage, at)}", client.since)
    alive = ""
    if facts.spec is not None:
        alive = (
            f"; its lease is alive, so it was heard in the last {facts.spec.lease.ttl_seconds} s"
        )
    return on_client(client, ordered + alive, one.asked_at)


def _place(facts: Facts, stage: Exchange, at: datetime) -> str:
    """What becomes of the work of a client that is gone."""
    until = stage.started_at + stage.budget.replace_until
    if stage.exchange == "evaluate":
        return "the evaluation goes on without it"
    if not facts.policy.replace_dropped:
        return "nobody takes its place; its own answer counts if it comes back"
    if at >= until:
        return "too late for another in its place; its own answer counts if it comes back"
    return f"a client that joins by {moment(until)} takes its place, or itself if it is back first"


def _is_gone(facts: Facts, one: Work) -> bool:
    client = facts.client(one.client_id)
    return client is not None and not client.is_joined


def _screening(stage: Exchange) -> Task | None:
    """What has come in and is not judged."""
    waiting = [one.reported_at for one in stage.work if one.reported_at and not one.verdict]
    if not waiting:
        return None
    doing = f"has not judged {counted(len(waiting), _names(stage).answer)}"
    return Task(service="aggregator", doing=doing, since=min(waiting))


def _to_screen(facts: Facts, stage: Exchange, at: datetime) -> Answer:
    task = _screening(stage)
    assert task is not None
    n = sum(1 for one in stage.work if one.reported_at and not one.verdict)
    return to_act(
        facts, at, task,
        code=_names(stage).screening,
        what=f"{stage.place}: the aggregator to judge {counted(n, _names(stage).answer)}",
        until=_closes_at(stage),
        then=f"the aggregator takes what it has: {_at_deadline(facts, stage)}",
    )  # fmt: skip


def _is_decided(stage: Exchange) -> bool:
    """The aggregator's own rule for closing before the deadline."""
    n_open = sum(not one.verdict for one in stage.work)
    of_cohort = sum(not one.verdict and not one.is_owed for one in stage.work)
    accepted = stage.n_accepted
    if accepted >= stage.goal or accepted + n_open < stage.n_required:
        return True
    return of_cohort == 0 and accepted >= stage.n_required


def _to_close(facts: Facts, stage: Exchange, at: datetime) -> Answer:
    n = stage.n_accepted
    names = _names(stage)
    if n < stage.n_required:
        what = f"to give it up: {n} of {stage.n_required} required {names.answer}s are accepted"
    else:
        verb = "fold" if stage.exchange == "train" else "sum up"
        what = f"to {verb} {counted(n, f'accepted {names.answer}')}"
    since = stage.judged_at or stage.started_at
    task = Task(service="aggregator", doing="has not closed the exchange", since=since)
    return to_act(
        facts, at, task,
        code=names.closing,
        what=f"{stage.place}: the aggregator {what}",
        until=_given_up_at(stage),
        then=_given_up(facts, stage),
    )  # fmt: skip


def _past_deadline(facts: Facts, stage: Exchange, at: datetime) -> Answer:
    closes_at, given_up_at = _closes_at(stage), _given_up_at(stage)
    what = f"{stage.place}: the aggregator to close it, as its deadline has passed"
    service, doing = "aggregator", "has not closed the exchange since its deadline,"
    until, then = closes_at, f"it takes what it has: {_at_deadline(facts, stage)}"
    if at >= closes_at:
        until, then = given_up_at, _given_up(facts, stage)
    if at >= given_up_at:
        what = f"{stage.place}: the orchestrator to give it up, as the aggregator is silent"
        service, doing = "orchestrator", "has not given the attempt up"
    since = given_up_at if service == "orchestrator" else stage.deadline_at
    task = Task(service=service, doing=doing, since=since)
    return to_act(
        facts, at, task,
        code="deadline-passed", what=what, until=until if at < given_up_at else None, then=then,
    )  # fmt: skip


# --- closed -----------------------------------------------------------------


def _closed(facts: Facts, stage: Exchange, at: datetime) -> Answer:
    until, then = _given_up_at(stage), _given_up(facts, stage)
    place, since = stage.place, stage.closed_at
    if stage.exchange == "evaluate":
        return _to_move_on(
            facts, at, "round-end-due", f"{place}: the round to end", since,
            "has not ended the round", until, "the round completes",
        )  # fmt: skip
    if stage.failure is not None:
        reason = stage.failure.reason or stage.failure.code
        return _to_move_on(
            facts, at, "attempt-end-due", f"{place}: the attempt to end ({reason})", since,
            "has not ended the attempt", until, _attempt_ends(facts, stage),
        )  # fmt: skip
    if stage.recorded_at is None:
        task = Task(service="artifact", doing="has not recorded the checkpoint", since=since)
        what = f"{place}: the new checkpoint to be read back and recorded"
        return to_act(
            facts, at, task, code="checkpoint-to-record", what=what, until=until, then=then
        )
    return _to_move_on(
        facts, at, "evaluation-start-due", f"{place}: the evaluation to start", stage.recorded_at,
        "has not started the evaluation", until, then,
    )  # fmt: skip


def _to_move_on(
    facts: Facts, at: datetime, code: str, what: str, since: datetime | None, doing: str,
    until: datetime, then: str,
) -> Answer:  # fmt: skip
    task = Task(service="orchestrator", doing=doing, since=since)
    return to_act(facts, at, task, code=code, what=what, until=until, then=then)


# --- what happens then ------------------------------------------------------


def _closes_at(stage: Exchange) -> datetime:
    return stage.deadline_at + (stage.budget.close - stage.budget.exchange)


def _given_up_at(stage: Exchange) -> datetime:
    return stage.deadline_at + (stage.budget.give_up - stage.budget.exchange)


def _given_up(facts: Facts, stage: Exchange) -> str:
    if stage.exchange == "evaluate":
        return "the orchestrator completes the round without its evaluation"
    return f"the attempt fails with aggregator-silent, and {_attempt_ends(facts, stage)}"


def _at_deadline(facts: Facts, stage: Exchange) -> str:
    n, needed = stage.n_accepted, stage.n_required
    answer = _names(stage).answer
    if n >= needed:
        return f"the round {_closes(stage)} with {counted(n, f'accepted {answer}')}"
    verb = "is" if needed == 1 else "are"
    missing = f"unless {counted(needed, answer)} {verb} accepted ({n} so far)"
    if stage.exchange == "evaluate":
        return f"the round completes without its evaluation, {missing}"
    return f"{missing}, the attempt fails with quorum-missed and {_attempt_ends(facts, stage)}"


def _closes(stage: Exchange) -> str:
    return "closes" if stage.exchange == "train" else "completes"


def _attempt_ends(facts: Facts, stage: Exchange) -> str:
    n = facts.policy.max_attempts
    if stage.attempt >= n:
        return (
            f"the federation fails with round-failed: attempt {stage.attempt} of {n} was the last"
        )
    return f"attempt {stage.attempt + 1} of {n} starts with the same clients"


def _names(stage: Exchange) -> Names:
    return TRAIN if stage.exchange == "train" else EVALUATE
