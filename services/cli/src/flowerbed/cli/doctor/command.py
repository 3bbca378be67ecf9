"""`flowerbed doctor`: of a stack on this machine, or with `--client` of a site."""

from pathlib import Path
from typing import Annotated

import typer

from flowerbed.cli.calling import Shown, example
from flowerbed.cli.doctor.report import examine

app = typer.Typer(add_completion=False)


@app.command(
    cls=Shown,
    epilog=example("flowerbed doctor", "flowerbed doctor --client /srv/flowerbed-client"),
)
def doctor(
    client: Annotated[
        Path | None,
        typer.Option("--client", metavar="DIR", help="Check the site whose agent lives there."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            envvar="FLOWERBED_STATE_DIR",
            file_okay=False,
            help="Of the stack to check.",
            show_default="the user's data home",
        ),
    ] = None,
) -> None:
    """Check a set-up, and say what to do about each finding. Changes nothing.

    Exit code 0 if nothing has failed (warnings are allowed), 1 if something has.
    """
    if client is not None:
        from flowerbed.cli.doctor import client_checks
        from flowerbed.runner.state import StateDir

        examine(client_checks.checks(StateDir.at(client)))
        return
    from flowerbed.cli.doctor import server_checks
    from flowerbed.embedded.layout import Layout

    examine(server_checks.checks(Layout.at(state_dir)))
