"""`flowerbed federation why`: what a run waits for, on whom, until when, and what happens then."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Api, StateDir, TokenFile, Unreachable, Url, connect, reporting
from flowerbed.cli.output import print_json
from flowerbed.cli.tables import Format, Output, moment

ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})
INTERVAL = 1.0
_WIDTH = 12
_SHOWN = 10

Answer = Mapping[str, Any]


def why(
    federation_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    watch: Annotated[
        bool, typer.Option("--watch", help="Tell it again when it changes, until it has ended.")
    ] = False,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Why it is not moving: what it waits for, on whom, until when, and the last error."""
    with reporting(as_json=output is Format.json):
        api = connect(url, token_file, state_dir)
        for answer in _answers(api, federation_id) if watch else [_ask(api, federation_id)]:
            if output is Format.json:
                print_json(answer)
            else:
                typer.echo("\n".join(block(answer, datetime.now(UTC))) + "\n" * watch)


def _ask(api: Api, federation_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/federations/{federation_id}/why", tries=2)
    return found


def _answers(api: Api, federation_id: str) -> Iterator[dict[str, Any]]:
    """Each answer that differs from the one before. A gateway that is away is waited for."""
    before: tuple[Any, ...] | None = None
    while True:
        try:
            answer = _ask(api, federation_id)
        except Unreachable as error:
            typer.echo(f"waiting for the gateway: {error}", err=True)
        else:
            if _gist(answer) != before:
                before = _gist(answer)
                yield answer
            if answer["status"] in ENDED:
                return
        time.sleep(INTERVAL)


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
