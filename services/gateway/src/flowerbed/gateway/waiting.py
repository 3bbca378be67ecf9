"""Why is this run not moving? One line, from the read models alone."""

from collections.abc import Sequence
from typing import Any

from flowerbed.gateway.views import ENDED, Artifact, Membership, Round

_NAMED = 4


def waiting_for(
    federation: Any,
    rounds: Sequence[Round],
    clients: Sequence[Membership],
    artifacts: Sequence[Artifact],
    silent: Sequence[str],
) -> str | None:
    """What the federation waits for; None when it has ended. `silent` clients owe an answer."""
    status: str = federation["status"]
    if status in ENDED:
        return None
    if status == "submitted":
        return "the orchestrator, which has not taken it up yet"
    if status == "paused":
        return "a person to resume it" + _until(federation["pause_expires_at"])
    if status == "created":
        return _to_start(federation, clients, artifacts)
    return _round(rounds, silent)


def _to_start(federation: Any, clients: Sequence[Membership], artifacts: Sequence[Artifact]) -> str:
    waits = []
    spec = (federation["spec"] or {}).get("spec", {})
    n_joined = sum(client.status == "joined" for client in clients)
    if n_joined < (needed := spec.get("min_clients", 1)):
        tags = ", ".join((spec.get("client_selector") or {}).get("tags") or ())
        waits.append(
            f"clients{f' tagged {tags}' if tags else ''}: {n_joined} of {needed} have joined"
            + _until(federation["join_deadline_at"])
        )
    if not any(artifact.kind == "base" for artifact in artifacts):
        waits.append("the base checkpoint")
    return "; ".join(waits) or "the first round to start"


def _round(rounds: Sequence[Round], silent: Sequence[str]) -> str:
    newest = rounds[-1] if rounds else None
    if newest is None:
        return "the first round to start"
    if newest.status == "failed":
        why = newest.reason or newest.code
        return f"another attempt at round {newest.round_number} ({why}){_until(newest.deadline_at)}"
    if newest.status == "completed":
        return "the next round to start" + _until(newest.deadline_at)
    doing = "train" if newest.status == "training" else "evaluate"
    counts = newest.train_updates if doing == "train" else newest.evaluate_updates
    n_asked = sum(counts.model_dump().values())
    place = f"round {newest.round_number}, {doing}"
    if not silent:
        return f"{place}: the aggregate of {n_asked - counts.asked} answers"
    named = ", ".join(silent[:_NAMED]) + (", …" if len(silent) > _NAMED else "")
    return f"{place}: {len(silent)} of {n_asked} clients ({named})" + _until(newest.deadline_at)


def _until(deadline: Any) -> str:
    return f", until {deadline:%Y-%m-%d %H:%M:%S} UTC" if deadline else ""
