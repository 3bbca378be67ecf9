"""`flowerbed track`: metrics of each round to TensorBoard, MLflow, or Weights & Biases."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.output import print_json_line

app = typer.Typer(add_completion=False)


@app.command(cls=Asking, epilog=example("flowerbed track --to tensorboard:runs --once"))
def track(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="FLOWERBED_TRACK_TO",
            help="tensorboard:DIRECTORY, mlflow:URI or wandb:PROJECT.",
        ),
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="wandb: write files, send them later.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="Catch up and end, instead of following.")
    ] = False,
    federation: Annotated[
        str | None, typer.Option("--federation", help="This one alone.", show_default="all")
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            "--cursor",
            dir_okay=False,
            help="Where to keep how far it was told.",
            show_default="under the user's state home",
        ),
    ] = None,
    tenant: Tenant = None,
) -> None:
    """Tell a tracker of experiments what each round measured; clients are told by no name.

    Started again, it goes on where it was, and tells no round twice.
    """
    from flowerbed.cli.tracking.cursor import default_path, kept
    from flowerbed.cli.tracking.follow import Choice, Tracker
    from flowerbed.cli.tracking.sinks import open_sink

    api = call().api()
    path = cursor or default_path(api.url, to, tenant, federation)
    with kept(path) as found:
        sink = open_sink(to, offline=offline)
        choice = Choice(tenant=tenant, federation=federation)
        tracker = Tracker(api, sink, found, choice, _say)
        try:
            if once:
                n_rounds = tracker.catch_up()
                if call().as_json:
                    print_json_line({"n_rounds": n_rounds, "to": to})
                else:
                    typer.echo(f"{n_rounds} new rounds told to {to}")
            else:
                # Who keeps services running ends them so; what was told is closed in order.
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                tracker.follow()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
        finally:
            sink.close()


def _say(line: str) -> None:
    typer.echo(line, err=call().as_json)
