"""One bundle of one tenant: pushed, once and for all.

Stream `app-<tenant>-<sha256>`. Pure code.
"""

from dataclasses import dataclass
from typing import TypeAlias

from flowerbed.contracts.apps import AppPushed
from flowerbed.contracts.values import Sha256
from flowerbed.events.decider import Decider

PushedApp: TypeAlias = AppPushed | None
"""What is known of the bundle: how it was pushed first."""


def stream_of(tenant: str, sha256: Sha256) -> str:
    return f"app-{tenant}-{sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushApp:
    """Its bytes were read, and are stored."""

    pushed: AppPushed


def decide(state: PushedApp, command: PushApp) -> list[AppPushed]:
    return [] if state is not None else [command.pushed]  # the same bytes: it is there already


def evolve(state: PushedApp, event: AppPushed) -> PushedApp:
    return state or event


app: Decider[PushedApp, PushApp, AppPushed] = Decider(None, decide, evolve)
