"""A federation while it runs: a picture on a terminal, lines where there is none.

    watch(api, federation_id)  ->  the federation as it ended

`picture` and `news` are pure: the federation's JSON in, something to print out.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowerbed.cli.api import Api, Unreachable
from flowerbed.cli.attempts import (
    exchange_news,
    is_whole,
    plain_table,
    round_news,
    rounds_table,
    seconds,
)
from flowerbed.cli.output import FAILED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})
INTERVAL = 0.4
ROUNDS_SHOWN = 15
CLIENTS_SHOWN = 15
"""Of more at once only the number is told."""
_BAR = 40

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "rejected": "red",
    "cancelled": "yellow",
    "paused": "yellow",
}

Federation = Mapping[str, Any]


class TimedOut(Unreachable):
    """It goes on, without us."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.exit_code = FAILED


def watch(
    api: Api,
    federation_id: str,
    *,
    console: "Console | None" = None,
    interval: float = INTERVAL,
    timeout: float | None = None,
    is_live: bool | None = None,
) -> dict[str, Any]:
    """Show the federation until it ends, and return it. A gateway that is away is waited for.

    Raises:
        TimedOut: it did not end within `timeout` seconds, or was not answered for so long.
        Refused: the gateway knows no such federation.
    """
    if console is None:
        from flowerbed.cli.tables import console as make_console

        console = make_console()
    states = _states(api, federation_id, interval, timeout, console)
    if console.is_terminal if is_live is None else is_live:
        return _watch_live(states, console)
    return _watch_lines(states, console)


def _states(
    api: Api, federation_id: str, interval: float, timeout: float | None, console: "Console"
) -> Iterator[dict[str, Any]]:
    """What the gateway says, again and again, until the federation has ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    is_away = False
    while True:
        try:
            federation = api.federation(federation_id)
        except Unreachable as error:
            if not is_away:
                console.print(f"waiting for the gateway: {error}", markup=False)
            is_away = True
        else:
            is_away = False
            yield federation
            if federation["status"] in ENDED:
                return
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOut(f"federation {federation_id} did not end within {timeout:g} s")
        time.sleep(interval)


def _watch_live(states: Iterator[dict[str, Any]], console: "Console") -> dict[str, Any]:
    from rich.live import Live

    federation: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for federation in states:
            n_clients = min(CLIENTS_SHOWN, len(federation["clients"]))
            room = max(3, console.height - 14 - n_clients)
            live.update(picture(federation, rounds_shown=min(room, ROUNDS_SHOWN)), refresh=True)
    return federation


def _watch_lines(states: Iterator[dict[str, Any]], console: "Console") -> dict[str, Any]:
    federation: dict[str, Any] = {}
    for newer in states:
        for line in news(federation, newer):
            console.print(line, markup=False)
        federation = newer
    return federation


# --- a picture --------------------------------------------------------------


def picture(federation: Federation, *, rounds_shown: int = ROUNDS_SHOWN) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [_headline(federation), _bar(federation)]
    if why := federation["waiting_for"]:
        parts.append(Text(f"waiting for {why}", style="dim"))
    elif federation["status"] != "completed" and (reason := _reason(federation)):
        parts.append(Text(reason, style="red"))
    if federation["clients"]:
        parts += [Text(), _clients(federation)]
    if federation["rounds"]:
        parts += [
            Text(),
            rounds_table(federation["rounds"][-rounds_shown:], is_whole=is_whole(federation)),
        ]
    return Group(*parts)


def _headline(federation: Federation) -> Any:
    from rich.text import Text

    status = federation["status"]
    text = Text(federation["name"] or federation["federation_id"], style="bold")
    text.append(f"  {federation['federation_id']}  ", style="dim")
    return text.append(status, style=_COLOURS.get(status, "cyan"))


def _bar(federation: Federation) -> Any:
    from rich.text import Text

    done, total = federation["n_rounds_completed"], federation["n_rounds"]
    filled = _BAR * done // max(total, 1)
    text = Text("━" * filled, style="green").append("─" * (_BAR - filled), style="dim")
    things = "exchanges" if is_whole(federation) else "rounds"
    text.append(f" {done} of {total} {things}", style="default")
    return text.append(f"  {seconds(_elapsed(federation))}", style="default")


def _clients(federation: Federation) -> Any:
    table = plain_table("client", "status", "dataset", "tags")
    for client in federation["clients"][:CLIENTS_SHOWN]:
        tags = ", ".join(client["tags"])
        table.add_row(client["client_id"], client["status"], client["dataset"] or "", tags)
    if left := Counter(one["status"] for one in federation["clients"][CLIENTS_SHOWN:]):
        counted = ", ".join(f"{n} {status}" for status, n in sorted(left.items()))
        table.add_row("and more", counted, "", "")
    return table


# --- news -------------------------------------------------------------------


def news(before: Federation, after: Federation) -> list[str]:
    """One line for everything that is in `after` and was not in `before` (which may be empty)."""
    lines = []
    if not before:
        name = f" ({after['name']})" if after["name"] else ""
        lines.append(f"federation {after['federation_id']}{name}")
    lines += _client_news(before, after)
    known = {_place(one): one for one in before.get("rounds", ())}
    told = exchange_news if is_whole(after) else round_news
    for one in after["rounds"]:
        lines += told(known.get(_place(one)), one)
    if before.get("status") != after["status"]:
        lines.append(_status_line(after))
    elif before.get("waiting_for") != after["waiting_for"] and not after["rounds"]:
        lines.append(f"waiting for {after['waiting_for']}")
    return lines


def _client_news(before: Federation, after: Federation) -> list[str]:
    known = {one["client_id"]: one["status"] for one in before.get("clients", ())}
    changed = [
        one
        for one in after["clients"]
        if one["status"] != "issued" and known.get(one["client_id"]) != one["status"]
    ]
    if len(changed) > CLIENTS_SHOWN:
        counts = Counter(one["status"] for one in changed)
        return [f"{n} clients {status}" for status, n in sorted(counts.items())]
    lines = []
    for one in changed:
        data = f" with {one['dataset']}" if one["status"] == "joined" and one["dataset"] else ""
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(f"client {one['client_id']} {one['status']}{data}{reason}")
    return lines


def _status_line(federation: Federation) -> str:
    status = federation["status"]
    if status == "completed" and (final := federation["final"]):
        return f"completed: {final['uri']} sha256 {final['sha256']}"
    if why := federation["waiting_for"]:
        return f"{status}: waiting for {why}"
    reason = _reason(federation)
    return f"{status}: {reason}" if reason else str(status)


def _reason(federation: Federation) -> str:
    return str(federation["reason"] or federation["code"])


def _place(one: Federation) -> tuple[int, int]:
    return one["round_number"], one["attempt"]


def _elapsed(federation: Federation) -> float | None:
    began = federation["started_at"]
    if began is None:
        return None
    ended = federation["ended_at"]
    until = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    return (until - datetime.fromisoformat(began)).total_seconds()
