"""`flowerbed dead-letters`: events that some service could not handle, and another try."""

from typing import Annotated

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.output import FAILED, fail, print_json
from flowerbed.cli.tables import moment, print_table

app = typer.Typer(
    help="Look at events that could not be handled, and handle them again.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("list", cls=Asking, epilog=example("flowerbed dead-letters list"))
def list_letters(tenant: Tenant = None) -> None:
    """Every dead letter of every service, oldest first."""
    found = call().api().get("/dead-letters", tenant=tenant)
    if call().as_json:
        print_json(found)
    elif not found["dead_letters"]:
        typer.echo("no dead letters")
    else:
        rows = [
            (
                one["service"], one["consumer"], one["lane"],
                f"{one['stream']}@{one['version']}", moment(one["parked_at"]), one["error"],
            )
            for one in found["dead_letters"]
        ]  # fmt: skip
        print_table(("service", "consumer", "lane", "event", "parked", "error"), rows)
    _tell_unavailable(found["unavailable"])


@app.command(cls=Asking, epilog=example("flowerbed dead-letters replay --service lease"))
def replay(
    service: Annotated[str | None, typer.Option("--service", help="e.g. lease.")] = None,
    consumer: Annotated[str | None, typer.Option("--consumer", help="As the list says.")] = None,
    federation: Annotated[
        str | None, typer.Option("--federation", help="Or the stream, outside of federations.")
    ] = None,
    tenant: Tenant = None,
) -> None:
    """Handle dead letters again, in their order; all of them, or those that are named."""
    wanted = {"service": service, "consumer": consumer, "federation_id": federation}
    body = {name: value for name, value in wanted.items() if value is not None}
    done = call().api().post("/dead-letters/replay", body, patience=300.0, tenant=tenant)
    if call().as_json:
        print_json(done)
    elif not done["lanes"]:
        typer.echo("no dead letters")
    for lane in () if call().as_json else done["lanes"]:
        failed = f", then failed again: {lane['error']}" if lane["error"] else ""
        typer.echo(
            f"{lane['service']} {lane['consumer']} {lane['lane']}:"
            f" {lane['replayed']} handled{failed}"
        )
    if any(lane["error"] for lane in done["lanes"]):
        raise typer.Exit(FAILED)
    _tell_unavailable(done["unavailable"])


def _tell_unavailable(services: list[str]) -> None:
    if services:
        fail(f"no answer from {', '.join(services)}: theirs are not known")
