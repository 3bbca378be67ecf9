"""A Flower app over a SuperLink, run as Flowerbed's own agent runs it over the bus.

Travels with `seeded` in the bundle of each run, and is imported at the site from there, in whatever
environment apps run there.
"""

import importlib
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from .seeded import Seeded

RESERVED = "flowerbed-"
"""How entries of the run config begin that the app does not see."""
CLIENT_APP, LOCAL_EPOCHS = "flowerbed-client-app", "flowerbed-local-epochs"

Config: TypeAlias = Mapping[str, bool | float | int | str]


_PATH = re.compile(r"(?<![\w/])(?:~|[A-Za-z]:)?[/\\][^\s'\",:;<>()]+")


class AppFailed(Exception):
    """The app raised an error; the site's own log has all of it."""


class Bridged(ClientApp):
    """The app of the bundle, loaded when a message has come that its site allows."""

    def __call__(self, message: Message, context: Context) -> Message:
        told = context.run_config
        _check_epochs(message, told)
        seen = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=dict(context.node_config),
            state=context.state,
            run_config={key: told[key] for key in told if not key.startswith(RESERVED)},
        )
        module, _, attributes = str(told[CLIENT_APP]).partition(":")
        loaded: ClientApp = attrgetter(attributes)(importlib.import_module(module))
        try:
            reply = Seeded(loaded)(message, seen)
        except Exception as error:  # whatever an app may raise: Flower sends its words out
            raise AppFailed(_without_paths(f"{type(error).__name__}: {error}")) from error
        context.state = seen.state
        return reply


def _without_paths(words: str) -> str:
    """Nothing of where this site keeps things leaves it."""
    return _PATH.sub("(path)", words)


def _check_epochs(message: Message, told: Config) -> None:
    """The site took the lease for so many epochs a round, and trains no more."""
    if message.metadata.message_type != "train":
        return
    config, most = message.content.config_records.get("config"), told[LOCAL_EPOCHS]
    ordered = 0 if config is None else config.get("local_epochs", 0)
    if not isinstance(ordered, int | float) or not isinstance(most, int | float) or ordered > most:
        raise PermissionError(f"{ordered!r} local epochs are ordered, the lease says {most!r}")


app = Bridged()
