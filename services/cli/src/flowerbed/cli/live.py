"""A federation while it runs: a picture on a terminal, lines where there is none.

    watch(api, federation_id)  ->  the federation as it ended

`picture` and `news` are pure: the federation's JSON in, something to print out.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flowerbed.cli.api import Api, Unreachable
from flowerbed.cli.output import FAILED, sized

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ENDED = frozenset({"completed", "failed", "cancelled", "rejected"})
INTERVAL = 0.4
ROUNDS_SHOWN = 15
CLIENTS_SHOWN = 15
"""Of more at once only the number is told."""
_BAR = 40

_FIRST_METRICS = ("train-loss", "eval-loss", "accuracy", "auroc")
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
        parts += [Text(), rounds_table(federation["rounds"][-rounds_shown:])]
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
    text.append(f" {done} of {total} rounds", style="default")
    return text.append(f"  {seconds(_elapsed(federation))}", style="default")


def _clients(federation: Federation) -> Any:
    table = _plain_table("client", "status", "dataset", "tags")
    for client in federation["clients"][:CLIENTS_SHOWN]:
        tags = ", ".join(client["tags"])
        table.add_row(client["client_id"], client["status"], client["dataset"] or "", tags)
    if left := Counter(one["status"] for one in federation["clients"][CLIENTS_SHOWN:]):
        counted = ", ".join(f"{n} {status}" for status, n in sorted(left.items()))
        table.add_row("and more", counted, "", "")
    return table


def rounds_table(rounds: Sequence[Federation]) -> Any:
    """One line an attempt: how many answered, what was measured, where the time went."""
    metrics = metric_names(rounds)
    sent = ["sent"] if any(_sent(one) for one in rounds) else []
    times_of = ("seconds", "training", "overhead")
    table = _plain_table("round", "status", "updates", *metrics, *sent, *times_of)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in rounds:
        measured = {**one["training"], **one["evaluation"]}
        total, trained, overhead = times(one)
        table.add_row(
            _numbered(one),
            one["status"],
            f"{_n_updates(one)}/{one['n_cohort']}",
            *(f"{measured[name]:.4f}" if name in measured else "" for name in metrics),
            *(_sent(one) for _ in sent),
            seconds(total),
            seconds(trained),
            seconds(overhead),
        )
    return table


def _n_updates(one: Federation) -> int:
    """In the checkpoint, or until there is one those that were accepted so far."""
    n_folded: int | None = one.get("n_updates")
    return one["train_updates"]["accepted"] if n_folded is None else n_folded


def _sent(one: Federation) -> str:
    """What the updates had in bytes, and of what they would have had; nothing if sent in full."""
    found = one.get("update_bytes") or {}
    if not found.get("form"):
        return ""
    share = f" ({found['sent'] / found['full']:.1%})" if found["full"] else ""
    return f"{sized(found['sent'])} {found['form']}{share}"


def _plain_table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        column.no_wrap = True
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
    for one in after["rounds"]:
        lines += _round_news(known.get(_place(one)), one)
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


def _round_news(before: Federation | None, after: Federation) -> list[str]:
    place = f"round {_numbered(after)}"
    earlier = before["status"] if before else ""
    lines = []
    if not before:
        lines.append(f"{place} started with {after['n_cohort']} clients")
    if after["status"] == earlier or after["status"] == "training":
        return lines
    if earlier in ("", "training") and after["status"] != "failed":
        lines.append(
            f"{place} trained: {_n_updates(after)} of {after['n_cohort']} updates"
            + _measures(after["training"])
        )
    if after["status"] == "failed":
        lines.append(f"{place} failed: {after['reason'] or after['code']}")
    if after["status"] == "completed":
        total, trained, overhead = times(after)
        spent = f"{seconds(total)}: {seconds(trained)} training, {seconds(overhead)} overhead"
        error = after["evaluation_error"]
        measured = f": not evaluated ({error})" if error else _measures(after["evaluation"])
        lines.append(f"{place} completed{measured} ({spent})")
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


def _measures(metrics: Mapping[str, float]) -> str:
    names = [name for name in _ordered(metrics) if name != "num-examples"]
    return "".join(f", {name} {metrics[name]:.4f}" for name in names)


# --- parts ------------------------------------------------------------------


def metric_names(rounds: Sequence[Federation]) -> list[str]:
    """Whatever the app measured, the usual ones first."""
    found = {name for one in rounds for name in (*one["training"], *one["evaluation"])}
    return _ordered(found - {"num-examples"})


def times(one: Federation) -> tuple[float | None, float | None, float | None]:
    """Of a round: all seconds, those of the slowest clients' apps, and the rest."""
    total = one["total_seconds"]
    trained = one["train_seconds"]
    if total is None or trained is None:
        return total, trained, None
    trained += one["evaluate_seconds"] or 0.0
    return total, trained, max(0.0, total - trained)


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def _ordered(names: Any) -> list[str]:
    first = [name for name in _FIRST_METRICS if name in names]
    return first + sorted(set(names) - set(first))


def _numbered(one: Federation) -> str:
    again = f" (attempt {one['attempt']})" if one["attempt"] > 1 else ""
    return f"{one['round_number']}{again}"


def _place(one: Federation) -> tuple[int, int]:
    return one["round_number"], one["attempt"]


def _elapsed(federation: Federation) -> float | None:
    began = federation["started_at"]
    if began is None:
        return None
    ended = federation["ended_at"]
    until = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    return (until - datetime.fromisoformat(began)).total_seconds()
