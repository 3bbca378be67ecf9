"""Why is this run not moving? Pure: the facts and the time in, the answer out.

Every state that is not final gives exactly one answer, with a code that stays the same:
`waiting.py` has those between exchanges, `exchange.py` those within, and here are the pauses,
the dead letters and the ends, which stand above both.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from flowerbed.gateway.why.answer import Answer
from flowerbed.gateway.why.exchange import exchange
from flowerbed.gateway.why.facts import (
    Between,
    Ended,
    Exchange,
    Facts,
    Letter,
    Pause,
    Serving,
    Starting,
    Submitted,
)
from flowerbed.gateway.why.serving import serving
from flowerbed.gateway.why.view import LastError, WaitedFor, Waits, Why
from flowerbed.gateway.why.waiting import between, starting, submitted
from flowerbed.gateway.why.words import because, counted, first_line, gist, moment


def why(facts: Facts, at: datetime) -> Why:
    """What the federation waits for at `at`."""
    answer = _of_stage(facts, at)
    if facts.pause is not None:
        answer = _paused(facts, facts.pause, answer)
    if not isinstance(facts.stage, Ended):
        answer = _parked(facts, answer)
    return Why(
        federation_id=facts.federation_id,
        status=facts.status,
        waits=Waits(code=answer.code, what=answer.what),
        on=list(answer.on),
        since=answer.since,
        until=answer.until,
        then=answer.then,
        is_overdue=answer.is_overdue,
        last_error=_last_error(facts),
        hints=list(dict.fromkeys(answer.hints)),
    )


def waiting_for(facts: Facts, at: datetime) -> str | None:
    """The same in one line; None of what has ended."""
    if isinstance(facts.stage, Ended):
        return None
    answer = why(facts, at)
    until = f", until {moment(answer.until)}" if answer.until else ""
    return answer.waits.what + until


def _of_stage(facts: Facts, at: datetime) -> Answer:
    match facts.stage:
        case Submitted() as stage:
            return submitted(facts, stage, at)
        case Starting() as stage:
            return starting(facts, stage, at)
        case Exchange() as stage:
            return exchange(facts, stage, at)
        case Between() as stage:
            return between(facts, stage, at)
        case Serving() as stage:
            return serving(facts, stage, at)
        case Ended() as stage:
            return _ended(facts, stage)
        case stage:
            assert_never(stage)


def _ended(facts: Facts, stage: Ended) -> Answer:
    reason = stage.reason or stage.code
    how = {
        "completed": "it completed every round",
        "cancelled": f"a person cancelled it{because(stage.reason)}",
        "rejected": f"its spec was refused{because(reason)}",
    }.get(facts.status, f"it failed with {stage.code}{because(stage.reason)}")
    show = "show" if facts.status in ("completed", "rejected") else "events"
    return Answer(
        code=facts.status,
        what=f"nothing any more: {how}",
        since=stage.at,
        hints=(f"flowerbed federation {show} {facts.federation_id}",),
    )


def _paused(facts: Facts, pause: Pause, inner: Answer) -> Answer:
    """Between exchanges all stands still; an open exchange goes on and may end."""
    doing = f"paused it{because(pause.reason)}" if pause.reason else "paused it, with no reason"
    person = WaitedFor(kind="person", id="operator", doing=doing, since=pause.since)
    paused = Answer(
        code="paused",
        what="a person to resume it",
        on=(person,),
        since=pause.since,
        until=pause.until,
        then="the federation fails with paused-too-long",
        hints=(f"flowerbed federation resume {facts.federation_id}",),
    )
    if not isinstance(facts.stage, Exchange):
        return paused
    return replace(
        paused,
        code="paused-in-round",
        what=f"a person to resume it; the open exchange goes on ({inner.what})",
        on=(person, *inner.on),
        is_overdue=inner.is_overdue,
        hints=paused.hints + inner.hints,
    )


def _parked(facts: Facts, inner: Answer) -> Answer:
    """What a service could not handle stops the federation there, until a person has it handled.

    The gateway only tells: what it could not handle does not stop the run, but its own answer.
    """
    hints = tuple(
        f"flowerbed dead-letters replay --service {letter.service} --federation"
        f" {facts.federation_id}"
        for letter in facts.letters
    )
    acting = [letter for letter in facts.letters if letter.service != "gateway"]
    if not acting:
        return replace(inner, hints=inner.hints + hints)
    first = min(acting, key=lambda letter: letter.parked_at)
    return replace(
        inner,
        code="parked",
        what=f"a person: the {first.service} could not handle {first.event} and parked it",
        on=tuple(_on_letter(letter) for letter in acting),
        since=first.parked_at,
        is_overdue=True,
        hints=("flowerbed dead-letters list", f"flowerbed logs {first.service}", *hints),
    )


def _on_letter(letter: Letter) -> WaitedFor:
    behind = f", and {counted(letter.n_behind, 'event')} behind it" if letter.n_behind else ""
    return WaitedFor(
        kind="service",
        id=letter.service,
        label=letter.consumer,
        doing=f"parked {letter.event}{behind}: {first_line(letter.error)}",
        since=letter.parked_at,
    )


def _last_error(facts: Facts) -> LastError | None:
    """Whichever is newer: what the events tell, or a dead letter."""
    found = [] if facts.last_error is None else [facts.last_error]
    found += [
        LastError(
            at=letter.parked_at,
            code="dead-letter",
            detail=gist(letter.error),
            traceback=letter.error if "\n" in letter.error else None,
            where=f"the {letter.service}, on {letter.event}",
        )
        for letter in facts.letters
    ]
    return max(found, key=lambda error: error.at, default=None)
