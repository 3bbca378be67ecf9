"""What a spec may say beside `server_app: whole`: the app's own `main` decides the rest."""

from typing import Any

from flowerbed.contracts.policy import RoundPolicy

ROUNDS = "num_server_rounds"
"""The run config's key for `num_rounds`, where the app has one: `flwr new` calls it so."""

_OF_POLICY = ("deadline_seconds", "max_attempts", "join_deadline_seconds")


def refused(key: str, value: Any) -> str | None:
    """What is allowed instead, where a whole ServerApp decides that itself."""
    match key:
        case "strategy" if value.model_fields_set and value != type(value)():
            return "no strategy: with server_app whole the app brings its own"
        case "client_fraction" if value != 1.0:
            return "1.0: with server_app whole the app's strategy chooses its nodes"
        case "round_policy":
            return _refused_policy(value)
        case "update" if not value.is_full:
            return "no update: with server_app whole replies travel as the app makes them"
        case "runtime" if value != "bus":
            return "bus: a whole ServerApp runs on no other transport yet"
        case _:
            return None


def _refused_policy(policy: RoundPolicy) -> str | None:
    usual = RoundPolicy()
    names = [
        name
        for name in RoundPolicy.model_fields
        if name not in _OF_POLICY and getattr(policy, name) != getattr(usual, name)
    ]
    if not names:
        return None
    return f"with server_app whole only {', '.join(_OF_POLICY)}: not {', '.join(names)}"
