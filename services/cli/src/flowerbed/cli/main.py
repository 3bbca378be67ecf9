"""`flowerbed`: the registry of commands. A command's module is imported when it is called."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click
import typer
from typer.core import TyperGroup

from flowerbed.cli import backup, stack
from flowerbed.cli.output import exit_codes

GROUPS = {
    "client": "Invite sites, and run the agent at a site.",
    "federation": "Submit, watch and stop federations.",
    "app": "Bring Flower apps of your own.",
    "artifact": "List, fetch, verify and promote checkpoints.",
    "webhook": "Have events sent to an address, signed.",
    "dead-letters": "Look at events that could not be handled, and handle them again.",
}
"""Name and help; the commands are `flowerbed.cli.<name>:app`, with `_` for `-`."""

COMMANDS = {
    "simulate": ("simulate:app", "Run a FederationSpec with virtual clients, without any site."),
    "events": ("feed:app", "Every event in the order of its position; can be followed, resumed."),
    "services": ("services:app", "Each service: ready or why not, lags, dead letters."),
    "slo": ("services:slo_app", "Service level indicators and error budgets."),
    "track": ("track:app", "Tell a tracker of experiments what each round measured."),
    "audit": ("audit:app", "Who gave which command, when, and what became of it."),
    "doctor": ("doctor.command:app", "Check a set-up, and say what to do about each finding."),
}
"""Name, where it is in `flowerbed.cli`, and help."""


class Later(click.Command):
    """Stands for a command until it is called."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._place = place

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        return self.real().make_context(info_name, args, parent=parent, **extra)

    def real(self) -> click.Command:
        return _loaded(self._place, self.help)


class Group(click.Group):
    """Stands for a group until one of its commands is called."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(name, help=summary, no_args_is_help=True)
        self._place = f"{name.replace('-', '_')}:app"

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> click.Context:
        return self.real().make_context(info_name, args, parent=parent, **extra)

    def real(self) -> click.Command:
        group = _loaded(self._place, self.help)
        group.epilog = group.epilog or exit_codes()
        return group


class Registry(TyperGroup):
    """The top level: its own commands first, then the groups that are installed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, (place, summary) in COMMANDS.items():
            self.add_command(Later(name, place, summary), name)
        for name, summary in GROUPS.items():
            if find_spec(f"flowerbed.cli.{name.replace('-', '_')}") is not None:
                self.add_command(Group(name, summary), name)


app = typer.Typer(
    cls=Registry,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=exit_codes(),
)
stack.register(app)
backup.register(app)


@app.callback()
def _root() -> None:
    """Federated training that grows in Flowerbed: the stack on this machine and its gateway."""


def main() -> None:
    app()


def _loaded(place: str, summary: str | None) -> click.Command:
    module, _, name = place.partition(":")
    command = typer.main.get_command(getattr(import_module(f"flowerbed.cli.{module}"), name))
    command.help = command.help or summary
    return command
