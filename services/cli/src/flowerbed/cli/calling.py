"""What commands have in common: how they answer, which gateway they ask, how they fail.

    @app.command(cls=Asking, epilog=example("flowerbed federation list --status running"))
    def list_federations() -> None:
        page = call().api().get("/federations")

`Shown` has `--output`; `Asking` has it too, and where the gateway is. Both turn what stops them
into one line, or one JSON problem, and an exit code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from typer.core import TyperCommand, TyperOption

from flowerbed.cli.failing import reporting
from flowerbed.cli.tables import Format

if TYPE_CHECKING:
    from flowerbed.artifact.blobs import Blobs
    from flowerbed.cli.api import Api

CONNECTION = "Connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How the running command was called."""

    output: Format = Format.table
    url: str | None = None
    token_file: Path | None = None
    state_dir: Path | None = None

    @property
    def as_json(self) -> bool:
        return self.output is Format.json

    def api(self) -> "Api":
        """The gateway that is meant. Raises: CommandFailed: there is none."""
        from flowerbed.cli.api import connect

        return connect(self.url, self.token_file, self.state_dir)

    def blobs(self) -> "Blobs":
        """The objects of the local stack."""
        from flowerbed.artifact.blobs import Blobs
        from flowerbed.cli.api import local_s3

        s3 = local_s3(self.state_dir)
        return Blobs(s3.endpoint, s3.access_key, s3.secret_key)


def call() -> Call:
    found = click.get_current_context().find_object(Call)
    assert found is not None, "the command's cls is neither Shown nor Asking"
    return found


def example(*lines: str) -> str:
    """What a command's help ends with."""
    return "Example: " + " ; ".join(f"`{line}`" for line in lines)


class Shown(TyperCommand):
    """A command that answers as a table or as JSON."""

    def __init__(
        self, *args: Any, params: list[click.Parameter] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, params=[*(params or ()), *self.added()], **more)

    def added(self) -> list[click.Parameter]:
        return [_output()]

    def invoke(self, ctx: click.Context) -> Any:
        given = {name: ctx.params.pop(name) for name in self._names() if name in ctx.params}
        given["output"] = Format(given["output"])
        ctx.obj = called = Call(**given)
        with reporting(as_json=called.as_json):
            return super().invoke(ctx)

    def _names(self) -> list[str]:
        return [option.name for option in self.added() if option.name is not None]


class Asking(Shown):
    """A command that asks a gateway."""

    def added(self) -> list[click.Parameter]:
        return [_output(), *_connection()]


def _output() -> click.Parameter:
    return TyperOption(
        param_decls=["output", "--output", "-o"],
        type=click.Choice([one.value for one in Format]),
        default=Format.table.value,
        help="`table` for people, `json` for programs.",
    )


def _connection() -> list[click.Parameter]:
    return [
        TyperOption(
            param_decls=["url", "--url"],
            envvar="FLOWERBED_URL",
            show_envvar=True,
            help="Address of a gateway elsewhere; its token comes from $FLOWERBED_TOKEN or a file.",
            rich_help_panel=CONNECTION,
        ),
        TyperOption(
            param_decls=["token_file", "--token-file"],
            type=click.Path(path_type=Path),
            help="File that holds the API token.",
            rich_help_panel=CONNECTION,
        ),
        TyperOption(
            param_decls=["state_dir", "--state-dir"],
            type=click.Path(path_type=Path),
            envvar="FLOWERBED_STATE_DIR",
            show_envvar=True,
            help="State directory of the local stack, to find the gateway and its token.",
            show_default="the user's data home",
            rich_help_panel=CONNECTION,
        ),
    ]
