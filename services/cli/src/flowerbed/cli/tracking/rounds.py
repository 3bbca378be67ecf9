"""What a round measured, as a tracker keeps it: numbers by name, and no client's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MARK = "round/updates"
"""A round is in a tracker when this is: each sink writes it last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A federation, as a tracker's run."""

    federation_id: str
    name: str
    tenant: str
    settings: Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`values` ends with the mark."""

    number: int
    at: datetime
    values: Mapping[str, float]


def run_of(federation: Mapping[str, Any]) -> Run:
    """From the gateway's answer about a federation."""
    spec = (federation["spec"] or {}).get("spec", {})
    settings = {
        **_plain("", spec, ("app", "num_rounds", "min_clients")),
        **_plain("train.", spec.get("train", {})),
        **_plain("strategy.", spec.get("strategy", {})),
    }
    return Run(
        federation_id=federation["federation_id"],
        name=federation["name"] or federation["federation_id"],
        tenant=federation["tenant"],
        settings=settings,
    )


def measured(
    event: Mapping[str, Any], federation: Mapping[str, Any], detail: Mapping[str, Any]
) -> Measured:
    """`event`: fl.round.completed from the feed. `detail`: the gateway's answer about the round."""
    data = event["data"]
    place = (data["round_number"], data["attempt"])
    values: dict[str, float] = {}
    for part, metrics in (("train", data["training"]), ("eval", data["evaluation"])):
        values |= {f"{part}/{name}": value for name, value in sorted(metrics.items())}
    labels = {client["client_id"]: client["dataset"] for client in federation["clients"]}
    for update in detail["updates"]:
        if update["attempt"] == data["attempt"] and update["status"] == "accepted":
            values |= _of_client(update, labels.get(update["client_id"]))
    for attempt in detail["attempts"]:
        if (attempt["round_number"], attempt["attempt"]) == place:
            values |= _numbers("round/", attempt, ("total_seconds", "train_seconds"))
    values["round/attempt"] = float(data["attempt"])
    values[MARK] = float(data["n_updates"])
    at = datetime.fromisoformat(event["recorded_at"])
    return Measured(number=data["round_number"], at=at, values=values)


def is_all_heard(event: Mapping[str, Any], detail: Mapping[str, Any]) -> bool:
    """Whether the gateway knows what became of the round's updates, beside that it completed."""
    for one in detail["attempts"]:
        if one["attempt"] == event["data"]["attempt"]:
            is_evaluated = one["evaluate_seconds"] is not None or one["evaluation_error"]
            was_evaluated = one["evaluation_started_at"] is not None
            return one["aggregated_at"] is not None and bool(is_evaluated or not was_evaluated)
    return False


def _of_client(update: Mapping[str, Any], label: str | None) -> dict[str, float]:
    """By the anonymous label of its dataset, or else by its place in the cohort."""
    place = update["place"]
    if label is None and place is None:
        return {}
    prefix = f"{label or f'client-{place + 1}'}/{_PARTS[update['exchange']]}-"
    return {
        **_numbers(prefix, update["metrics"] or {}),
        **_numbers(prefix, update, ("n_examples", "train_seconds")),
    }


_PARTS = {"train": "train", "evaluate": "eval"}


def _numbers(
    prefix: str, found: Mapping[str, Any], names: tuple[str, ...] | None = None
) -> dict[str, float]:
    return {
        prefix + name: float(found[name])
        for name in (sorted(found) if names is None else names)
        if isinstance(found.get(name), int | float)
    }


def _plain(
    prefix: str, section: Mapping[str, Any], names: tuple[str, ...] | None = None
) -> dict[str, str | int | float]:
    return {
        prefix + name: section[name]
        for name in (sorted(section) if names is None else names)
        if isinstance(section.get(name), str | int | float)
    }
