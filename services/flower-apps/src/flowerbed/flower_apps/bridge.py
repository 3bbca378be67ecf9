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
LABEL_ENTROPY = "flowerbed-label-entropy"
"""In the node's config: False keeps that metric at the site."""

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
            node_config=_apps_own(context.node_config),
            state=context.state,
            run_config=_apps_own(told),
        )
        module, _, attributes = str(told[CLIENT_APP]).partition(":")
        loaded: ClientApp = attrgetter(attributes)(importlib.import_module(module))
        try:
            reply = Seeded(loaded)(message, seen)
        except Exception as error:  # whatever an app may raise: Flower sends its words out
            raise AppFailed(_without_paths(f"{type(error).__name__}: {error}")) from error
        context.state = seen.state
        _keep_entropy(context, reply)
        return reply


def _apps_own(config: Config) -> dict[str, bool | float | int | str]:
    return {key: config[key] for key in config if not key.startswith(RESERVED)}


def _without_paths(words: str) -> str:
    """Nothing of where this site keeps things leaves it."""
    return _PATH.sub("(path)", words)


def _check_epochs(message: Message, told: Config) -> None:
    """The site took the lease for so many epochs a round, and trains no more."""
    config, most = message.content.config_records.get("config"), told[LOCAL_EPOCHS]
    if message.metadata.message_type != "train" or config is None:
        return
    for name in ("local-epochs", "local_epochs"):
        ordered = config.get(name, 0)
        is_number = isinstance(ordered, int | float) and isinstance(most, int | float)
        if not is_number or ordered > most:  # type: ignore[operator]  # both are numbers
            raise PermissionError(f"{ordered!r} local epochs are ordered, the lease says {most!r}")


def _keep_entropy(context: Context, reply: Message) -> None:
    """Where the site's policy keeps to itself how its labels are spread."""
    if context.node_config.get(LABEL_ENTROPY) is False and reply.has_content():
        for record in reply.content.metric_records.values():
            record.pop("label-entropy", None)


app = Bridged()
