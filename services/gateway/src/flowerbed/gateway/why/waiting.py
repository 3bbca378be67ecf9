"""Between exchanges: before the first round, and before the next round or attempt."""

from datetime import datetime, timedelta

from flowerbed.contracts.apps import is_pushed
from flowerbed.gateway.why.answer import Answer, Task, absence, on_client, to_act
from flowerbed.gateway.why.facts import Between, Facts, Failure, Starting, Submitted
from flowerbed.gateway.why.view import WaitedFor
from flowerbed.gateway.why.words import because

TO_MAKE_A_BASE = timedelta(seconds=60)
"""The app's own code runs in a new process."""

_TOO_FEW = "the federation fails with too-few-clients"
_ORDER = {"joined": 0, "dropped": 2, "released": 3, "enrolled": 4}


def submitted(facts: Facts, stage: Submitted, at: datetime) -> Answer:
    task = Task(service="orchestrator", doing="has not taken it up", since=stage.since)
    return to_act(
        facts, at, task,
        code="not-taken-up",
        what="the orchestrator, which has not taken it up yet",
        then="it is created, or rejected with every reason",
    )  # fmt: skip


def starting(facts: Facts, stage: Starting, at: datetime) -> Answer:
    if stage.base_failure is not None or _is_past(stage.until, at):
        return _end_due(facts, stage, at)
    missing = facts.n_needed - len(facts.joined)
    base = _base(facts, stage)
    if missing > 0:
        return _to_join(facts, stage, base, at)
    if base is not None:
        made = stage.base_made_at is not None
        return to_act(
            facts, at, base,
            code="base-to-record" if made else "base-to-make",
            what="the base checkpoint" + (" to be read back and recorded" if made else ""),
            until=stage.until,
            then=_TOO_FEW,
        )  # fmt: skip
    since = _newest(stage.base_recorded_at, facts)
    task = Task(service="orchestrator", doing="has not started the first round", since=since)
    return to_act(
        facts, at, task,
        code="start-due", what="the first round to start", until=stage.until, then=_TOO_FEW,
    )  # fmt: skip


def between(facts: Facts, stage: Between, at: datetime) -> Answer:
    again = stage.failure is not None
    place = f"attempt {stage.attempt} at round {stage.round_number}"
    place = place if again else f"round {stage.round_number}"
    failure = f" (attempt {stage.attempt - 1}: {stage.failure.reason})" if stage.failure else ""
    if stage.is_last or _is_past(stage.until, at) or _is_done(facts, stage):
        return _end_due(facts, stage, at)
    n = len(facts.joined)
    if n >= facts.n_needed:
        since = _newest(stage.since, facts)
        task = Task(service="orchestrator", doing=f"has not started {place}", since=since)
        return to_act(
            facts, at, task,
            code="next-attempt-due" if again else "next-round-due",
            what=f"{place} to start{failure}", until=stage.until, then=_TOO_FEW,
        )  # fmt: skip
    return Answer(
        code="clients-for-next-attempt" if again else "clients-for-next-round",
        what=f"clients for {place}: {n} of {facts.n_needed} have joined{failure}",
        on=_absent(facts, at) or (_operator(facts),),
        since=stage.since,
        until=stage.until,
        then=_TOO_FEW,
        hints=_to_find_clients(facts),
    )


def _to_join(facts: Facts, stage: Starting, base: Task | None, at: datetime) -> Answer:
    tags = ", ".join(facts.spec.client_selector.tags) if facts.spec else ""
    n, needed = len(facts.joined), facts.n_needed
    absent = _absent(facts, at)
    on = absent if len(absent) >= needed - n else (*absent, _operator(facts))
    too = "" if base is None else "; and for the base checkpoint"
    return Answer(
        code="clients-to-join",
        what=f"clients{f' tagged {tags}' if tags else ''}: {n} of {needed} have joined{too}",
        on=on if base is None else (*on, base.waited_for(facts, at)),
        since=stage.since,
        until=stage.until,
        then=_TOO_FEW,
        is_overdue=base is not None and base.is_overdue(facts, at),
        hints=_to_find_clients(facts) + (() if base is None else base.hints(facts, at)),
    )


def _base(facts: Facts, stage: Starting) -> Task | None:
    if stage.base_recorded_at is not None:
        return None
    if stage.base_made_at is not None:
        doing = "has not recorded the base checkpoint"
        return Task(service="artifact", doing=doing, since=stage.base_made_at)
    return Task(
        service="aggregator",
        doing="has not made the base checkpoint",
        since=stage.since,
        usual=TO_MAKE_A_BASE,
    )


def _end_due(facts: Facts, stage: Starting | Between, at: datetime) -> Answer:
    """Nothing more can come of it, or nobody waits any longer; only its end is missing."""
    task, ends = _end(facts, stage)
    return to_act(facts, at, task, code="end-due", what="the orchestrator to end it", then=ends)


def _end(facts: Facts, stage: Starting | Between) -> tuple[Task, str]:
    doing = "has not ended it"
    match stage:
        case Starting(base_failure=Failure() as failure):
            task = Task(service="orchestrator", doing=doing, since=failure.at)
            return task, f"the federation fails with {failure.code}{because(failure.reason)}"
        case Between(is_last=True, failure=Failure() as failure):
            task = Task(service="orchestrator", doing=doing, since=stage.since)
            return task, f"the federation fails with round-failed{because(failure.reason)}"
        case Between() if _is_done(facts, stage):
            task = Task(service="orchestrator", doing=doing, since=stage.since)
            return task, "the federation completes"
        case _:
            return Task(service="orchestrator", doing=doing, since=stage.until), _TOO_FEW


def _is_done(facts: Facts, stage: Between) -> bool:
    return facts.spec is not None and stage.round_number > facts.spec.num_rounds


def _absent(facts: Facts, at: datetime) -> tuple[WaitedFor, ...]:
    """Clients that could be there and are not, those nearest to it first."""
    absent = [client for client in facts.clients if not client.is_joined]
    absent.sort(key=lambda client: (_ORDER.get(client.status, 1), client.client_id))
    return tuple(
        on_client(
            client,
            absence(client, at),
            client.declined.at if client.declined else client.since,
        )
        for client in absent
    )


def _operator(facts: Facts) -> WaitedFor:
    tags = ", ".join(facts.spec.client_selector.tags) if facts.spec else ""
    doing = f"can start a client: no other{f' tagged {tags}' if tags else ''} is enrolled"
    return WaitedFor(kind="person", id="site-operator", label=tags, doing=doing)


def _to_find_clients(facts: Facts) -> tuple[str, ...]:
    tags = ",".join(facts.spec.client_selector.tags) if facts.spec else ""
    return (
        *_to_allow(facts),
        "flowerbed client list",
        "flowerbed client invite" + (f" --tags {tags}" if tags else ""),
        "flowerbed client status",
    )


def _to_allow(facts: Facts) -> tuple[str, ...]:
    """For the operators of sites whose policy has no place for the app, or without SuperNodes."""
    codes = {client.declined.code for client in facts.clients if client.declined is not None}
    hints = ["flowerbed client start --superlink"] if "no-supernode" in codes else []
    if facts.spec is not None and "policy-app" in codes:
        app = facts.spec.app
        hints.append(f"flowerbed client policy allow {app if is_pushed(app) else '--builtin'}")
    return tuple(hints)


def _is_past(until: datetime | None, at: datetime) -> bool:
    return until is not None and at >= until


def _newest(since: datetime | None, facts: Facts) -> datetime | None:
    """When the last thing that was missing was there."""
    times = [client.since for client in facts.joined if client.since is not None]
    return max([*times, *([since] if since is not None else [])], default=None)
