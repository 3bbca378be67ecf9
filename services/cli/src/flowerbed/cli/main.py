"""`flowerbed`: the registry of commands. A group's module is imported when one of its runs."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click
import typer
from typer.core import TyperGroup

from flowerbed.cli import backup, stack, track

GROUPS = {
    "client": "Invite sites, and run the agent at a site.",
    "federation": "Submit, watch and stop federations.",
    "artifact": "List, fetch, verify and promote checkpoints.",
    "webhook": "Have events sent to an address, signed.",
    "dead-letters": "Look at events that could not be handled, and handle them again.",
}
"""Name and help; the commands are `flowerbed.cli.<name>:app`, with `_` for `-`."""


class Group(click.Group):
    """Stands for a group until one of its commands is called."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(name, help=summary, no_args_is_help=True)
        self._module = _module(name)

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        command = typer.main.get_command(import_module(self._module).app)
        command.help = command.help or self.help
        return command.make_context(info_name, args, parent=parent, **extra)


class Registry(TyperGroup):
    """The top level: its own commands first, then the groups that are installed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, summary in GROUPS.items():
            if find_spec(_module(name)) is not None:
                self.add_command(Group(name, summary), name)


app = typer.Typer(
    cls=Registry,
    help="Federated training that grows in Flowerbed: the stack on this machine and its gateway.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
stack.register(app)
backup.register(app)
track.register(app)


@app.callback()
def _root() -> None:
    """Federated training on Flower: a stack on this machine, and what runs on it."""


def main() -> None:
    app()


def _module(name: str) -> str:
    return f"flowerbed.cli.{name.replace('-', '_')}"
