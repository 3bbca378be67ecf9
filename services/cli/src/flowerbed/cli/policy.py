"""`flowerbed federation policy`: when a round ends, shown and changed while the federation runs."""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

import typer

from flowerbed.cli.api import Api
from flowerbed.cli.calling import call
from flowerbed.cli.completing import FederationId
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.output import BAD_INPUT, print_json
from flowerbed.cli.tables import Format, print_table

_TOLD = {
    "exchange": "clients have for one exchange",
    "replace_until": "a client that leaves is replaced until",
    "close": "the aggregator takes what it has after",
    "give_up": "the aggregator is given up after",
    "late_work": "late work runs out after",
    "round_": "a whole round takes at most",
}


def policy(
    federation_id: FederationId,
    show: Annotated[bool, typer.Option("--show", help="Change nothing.")] = False,
    mode: Annotated[
        Literal["synchronous", "buffered"] | None, typer.Option("--mode", help="How rounds close.")
    ] = None,
    quorum: Annotated[
        float | None, typer.Option("--quorum", help="Fraction of the goal that is enough.")
    ] = None,
    close_at: Annotated[
        int | None, typer.Option("--close-at", help="Close at so many updates (k of n).")
    ] = None,
    no_close_at: Annotated[
        bool, typer.Option("--no-close-at", help="Wait for all the goal again.")
    ] = False,
    buffer_size: Annotated[
        int | None, typer.Option("--buffer-size", help="Updates that close a buffered round.")
    ] = None,
    over_select: Annotated[
        float | None, typer.Option("--over-select", help="Clients asked per client needed.")
    ] = None,
    late_updates: Annotated[
        Literal["refuse", "next_round"] | None,
        typer.Option("--late-updates", help="What becomes of them."),
    ] = None,
    staleness_exponent: Annotated[
        float | None, typer.Option("--staleness-exponent", help="a of (1 + staleness)^-a.")
    ] = None,
    max_staleness: Annotated[
        int | None, typer.Option("--max-staleness", help="Rounds; staler updates are refused.")
    ] = None,
    replace_dropped: Annotated[
        bool | None,
        typer.Option(
            "--replace-dropped/--no-replace-dropped",
            show_default=False,
            help="Ask another client in the place of one that left.",
        ),
    ] = None,
    budget_seconds: Annotated[
        float | None, typer.Option("--budget-seconds", help="Of one round with all its attempts.")
    ] = None,
    deadline_seconds: Annotated[
        float | None, typer.Option("--deadline-seconds", help="Of one exchange.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", help="Of one round.")
    ] = None,
    join_deadline_seconds: Annotated[
        float | None, typer.Option("--join-deadline-seconds", help="To wait for enough clients.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "",
) -> None:
    """Show a federation's round policy, or change some of it; the open exchange keeps its own."""
    given = {
        "mode": mode, "quorum": quorum, "close_at": close_at, "buffer_size": buffer_size,
        "over_select": over_select, "late_updates": late_updates,
        "staleness_exponent": staleness_exponent, "max_staleness": max_staleness,
        "replace_dropped": replace_dropped, "budget_seconds": budget_seconds,
        "deadline_seconds": deadline_seconds, "max_attempts": max_attempts,
        "join_deadline_seconds": join_deadline_seconds,
    }  # fmt: skip
    changes = _changes(given, no_close_at=no_close_at)
    if show and changes:
        raise CommandFailed("--show changes nothing: leave it out", exit_code=BAD_INPUT)
    api, output = call().api(), call().output
    if not changes:
        _show(_current(api, federation_id), output)
        return
    answer = api.post(f"/federations/{federation_id}/policy", {**changes, "reason": reason})
    if output is Format.json:
        print_json(answer)
        return
    _show(answer["policy"], output, answer["changed"])
    typer.echo(_said(answer))


def _changes(given: Mapping[str, Any], *, no_close_at: bool) -> dict[str, Any]:
    changes = {key: value for key, value in given.items() if value is not None}
    for key, value in changes.items():
        if isinstance(value, float) and not math.isfinite(value):
            option = key.replace("_", "-")
            raise CommandFailed(f"--{option} {value}: a finite number", exit_code=BAD_INPUT)
    if no_close_at and "close_at" in changes:
        raise CommandFailed("--close-at or --no-close-at, not both", exit_code=BAD_INPUT)
    return changes | ({"close_at": None} if no_close_at else {})


def _current(api: Api, federation_id: str) -> dict[str, Any]:
    spec = api.federation(federation_id)["spec"]
    if spec is None:
        raise CommandFailed(f"{federation_id} was refused: it has no policy")
    policy: dict[str, Any] = spec["spec"].get("round_policy", {})
    return policy


def _show(policy: Mapping[str, Any], output: Format, changed: list[str] | None = None) -> None:
    from flowerbed.contracts.policy import Budget, RoundPolicy

    whole = RoundPolicy.model_validate(policy)
    budget = Budget.of(whole)
    timeouts: dict[str, timedelta] = {name: getattr(budget, name) for name in _TOLD}
    if output is Format.json:
        seconds = {name.rstrip("_"): one.total_seconds() for name, one in timeouts.items()}
        print_json({"policy": whole.model_dump(mode="json"), "seconds": seconds})
        return
    rows = [
        (key, _as_written(value), "changed" if key in (changed or ()) else "")
        for key, value in whole.model_dump(mode="json").items()
    ]
    print_table(("round policy", "value", ""), rows)
    told = [(_TOLD[name], f"{one.total_seconds():g} s") for name, one in timeouts.items()]
    print_table(("time-outs that follow", "from its start"), told)


def _as_written(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _said(answer: Mapping[str, Any]) -> str:
    if not answer["changed"]:
        return "nothing changed: the policy was so already"
    changed = ", ".join(answer["changed"])
    return f"changed {changed}; counts from {answer['counts_from']}"
