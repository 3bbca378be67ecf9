"""`flowerbed federation why`: what a run waits for, on whom, until when, and what happens then."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from flowerbed.cli.calling import call
from flowerbed.cli.completing import FederationId
from flowerbed.cli.output import print_json
from flowerbed.cli.tables import moment
from flowerbed.cli.watching import changes

ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})
_WIDTH = 12
_SHOWN = 10

Answer = Mapping[str, Any]


def why(
    federation_id: FederationId,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Tell it again when it changes, until it has ended."),
    ] = False,
) -> None:
    """Why it is not moving: what it waits for, on whom, until when, and the last error."""
    api = call().api()

    def ask() -> dict[str, Any]:
        path, tries = f"/federations/{federation_id}/why", 1 if watch else 2
        found: dict[str, Any] = api.get(path, tries=tries)
        return found

    answers = changes(ask, _gist, lambda answer: answer["status"] in ENDED) if watch else [ask()]
    for answer in answers:
        if call().as_json:
            print_json(answer)
        else:
            typer.echo("\n".join(block(answer, datetime.now(UTC))) + "\n" * watch)


def _gist(answer: Answer) -> tuple[Any, ...]:
    """What makes two answers differ; the seconds that pass do not."""
    on = tuple((one["kind"], one["id"], one["since"]) for one in answer["on"])
    error = answer["last_error"]
    return answer["status"], answer["waits"], on, answer["is_overdue"], error and error["at"]


# --- a block ----------------------------------------------------------------


def block(answer: Answer, now: datetime) -> list[str]:
    """The answer in lines, `label` first. Pure."""
    overdue = "  (overdue)" if answer["is_overdue"] else ""
    lines = _line("federation", answer["federation_id"])
    lines += _line("status", answer["status"] + overdue)
    lines += _line("waits for", f"{answer['waits']['what']}  [{answer['waits']['code']}]")
    for one in answer["on"][:_SHOWN]:
        lines += _line("on", _who(one)) + _below(one["doing"])
    if (n_more := len(answer["on"]) - _SHOWN) > 0:
        lines += _line("on", f"{n_more} more: see --output json")
    if answer["since"]:
        lines += _line("since", _moment(answer["since"], now))
    if answer["until"]:
        lines += _line("until", _moment(answer["until"], now))
    if answer["then"]:
        lines += _line("then", answer["then"])
    lines += _error(answer["last_error"], now)
    for hint in answer["hints"]:
        lines += _line("try", hint)
    return lines


def _who(one: Answer) -> str:
    label = f" ({one['label']})" if one["label"] else ""
    return f"{one['kind']} {one['id']}{label}"


def _error(error: Answer | None, now: datetime) -> list[str]:
    if error is None:
        return []
    by = f" at client {error['client_id']}" if error["client_id"] else ""
    by += f" ({error['label']})" if error["label"] else ""
    lines = _line("last error", f"{error['code']} in {error['where']}{by}")
    lines += _below(_moment(error["at"], now))
    return lines + _below(error["traceback"] or error["detail"])


def _line(label: str, text: str) -> list[str]:
    return [f"{label + ':':<{_WIDTH}} {text}"]


def _below(text: str) -> list[str]:
    return [f"{'':<{_WIDTH}}   {line}" for line in text.splitlines()]


def _moment(text: str, now: datetime) -> str:
    apart = datetime.fromisoformat(text) - now
    told = f"in {_lasting(apart)}" if apart > timedelta() else f"{_lasting(-apart)} ago"
    return f"{moment(text)} ({told})"


def _lasting(time_: timedelta) -> str:
    seconds = round(time_.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds} s"
