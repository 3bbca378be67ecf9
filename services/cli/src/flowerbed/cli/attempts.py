"""What is said of a federation's rounds, or of the exchanges of an app's whole ServerApp. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowerbed.cli.output import sized

_FIRST_METRICS = ("train-loss", "eval-loss", "accuracy", "auroc")
_COUNTS = ("num-replies", "num-errors")
"""Of an exchange: no measures."""

Attempt = Mapping[str, Any]


def is_whole(federation: Mapping[str, Any]) -> bool:
    """Whether the app's own ServerApp runs: what the API calls its rounds are its exchanges."""
    document = federation.get("spec") or {}
    return bool(document.get("spec", {}).get("server_app") == "whole")


# --- a table ----------------------------------------------------------------


def rounds_table(rounds: Sequence[Attempt], *, is_whole: bool = False) -> Any:
    """One line an attempt: how many answered, what was measured, where the time went."""
    metrics = [name for name in metric_names(rounds) if not is_whole or name not in _COUNTS]
    sent = ["sent"] if any(_sent(one) for one in rounds) else []
    names = ("exchange", "status", "replies") if is_whole else ("round", "status", "updates")
    times_of = ("seconds",) if is_whole else ("seconds", "training", "overhead")
    table = plain_table(*names, *metrics, *sent, *times_of)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in rounds:
        measured = {**one["training"], **one["evaluation"]}
        table.add_row(
            _numbered(one),
            one["status"],
            f"{_n_replies(one) if is_whole else _n_updates(one)}/{one['n_cohort']}",
            *(f"{measured[name]:.4f}" if name in measured else "" for name in metrics),
            *(_sent(one) for _ in sent),
            *(seconds(time) for time in times(one)[: len(times_of)]),
        )
    return table


def _n_updates(one: Attempt) -> int:
    """In the checkpoint, or until there is one those that were accepted so far."""
    n_folded: int | None = one.get("n_updates")
    return one["train_updates"]["accepted"] if n_folded is None else n_folded


def _n_replies(one: Attempt) -> int:
    """Handed to the app; of the exchange that has what it measured instead, all that came."""
    n_handed: float | None = one["training"].get("num-replies")
    return one["train_updates"]["accepted"] if n_handed is None else round(n_handed)


def _sent(one: Attempt) -> str:
    """What the updates had in bytes, and of what they would have had; nothing if sent in full."""
    found = one.get("update_bytes") or {}
    if not found.get("form"):
        return ""
    share = f" ({found['sent'] / found['full']:.1%})" if found["full"] else ""
    return f"{sized(found['sent'])} {found['form']}{share}"


def plain_table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        column.no_wrap = True
    return table


# --- lines ------------------------------------------------------------------


def round_news(before: Attempt | None, after: Attempt) -> list[str]:
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


def exchange_news(before: Attempt | None, after: Attempt) -> list[str]:
    """Of a whole ServerApp's exchange."""
    place, n = f"exchange {after['round_number']}", after["n_cohort"]
    lines = []
    if not before:
        lines.append(f"{place}: {n} message{'' if n == 1 else 's'} sent")
    if after["status"] == "completed" and (not before or before["status"] != "completed"):
        n_errors = round(after["training"].get("num-errors", 0))
        errors = f", {n_errors} error{'' if n_errors == 1 else 's'}" if n_errors else ""
        spent = seconds(after["total_seconds"])
        lines.append(f"{place} done: {_n_replies(after)} of {n} replies{errors} ({spent})")
    if (measured := _measured(after)) and (not before or _measured(before) != measured):
        lines.append(f"the app has measured {measured}")
    return lines


def _measured(one: Attempt) -> str:
    """What the app's strategy made of all exchanges, which the last one has."""
    found = {**one["training"], **one["evaluation"]}
    return _measures({name: found[name] for name in found if name not in _COUNTS}).lstrip(", ")


def _measures(metrics: Mapping[str, float]) -> str:
    names = [name for name in _ordered(metrics) if name != "num-examples"]
    return "".join(f", {name} {metrics[name]:.4f}" for name in names)


# --- parts ------------------------------------------------------------------


def metric_names(rounds: Sequence[Attempt]) -> list[str]:
    """Whatever the app measured, the usual ones first."""
    found = {name for one in rounds for name in (*one["training"], *one["evaluation"])}
    return _ordered(found - {"num-examples"})


def times(one: Attempt) -> tuple[float | None, float | None, float | None]:
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


def _numbered(one: Attempt) -> str:
    again = f" (attempt {one['attempt']})" if one["attempt"] > 1 else ""
    return f"{one['round_number']}{again}"
