"""`flowerbed events`: the durable feed of all events, followed and resumed from any position."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Api, Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.completing import federation_ids
from flowerbed.cli.failing import Unreachable
from flowerbed.cli.output import print_json_line
from flowerbed.cli.tables import moment

app = typer.Typer(add_completion=False)

PAUSE = 1.0
MOST = 1_000


@app.command(
    cls=Asking,
    epilog=example(
        "flowerbed events --follow --type fl.round.completed",
        "flowerbed events --after 1200 --output json",
    ),
)
def events(
    after: Annotated[
        int, typer.Option("--after", min=0, help="Only what lies behind this position.")
    ] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as events come, for ever.")
    ] = False,
    federation: Annotated[
        str | None,
        typer.Option("--federation", help="Only about this one.", autocompletion=federation_ids),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be given again.")
    ] = None,
    tenant: Tenant = None,
) -> None:
    """Every event in the order of its position, one a line; JSON is an event a line too.

    The position where it ended is the last line on stderr: `--after` goes on there.
    """
    wanted = {"federation": federation, "type": types or None, "tenant": tenant}
    api, position = call().api(), after
    found = _followed(api, after, wanted) if follow else _pages(api, after, wanted)
    try:
        for event in found:
            position = event["position"]
            print_json_line(event) if call().as_json else typer.echo(told(event))
    except KeyboardInterrupt:
        pass
    typer.echo(f"go on with --after {position}", err=True)


def told(event: Mapping[str, Any]) -> str:
    """One event in one line for a person."""
    data = event["data"]
    about = [
        f"{name.removesuffix('_id').removesuffix('_number')} {data[name]}"
        for name in ("round_number", "attempt", "exchange", "client_id", "code", "reason")
        if data.get(name) not in (None, "")
    ]
    where = event["federation_id"] or event["stream"]
    about_text = f"  {', '.join(about)}" if about else ""
    return (
        f"{event['position']:>8}  {moment(event['recorded_at'])}  {event['type']:<28}"
        f"  {where}{about_text}"
    )


def _pages(api: Api, after: int, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    while True:
        page = api.get("/events", after=after, limit=MOST, tries=2, **wanted)
        yield from page["events"]
        if not page["events"]:
            return
        after = page["next_after"]


def _followed(api: Api, after: int, wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """For ever. A connection that breaks is made again, from the last event on."""
    is_away = False
    while True:
        try:
            for event in api.stream(after, **wanted):
                is_away, after = False, event["position"]
                yield event
        except Unreachable as error:
            if not is_away:
                typer.echo(f"waiting: {error}", err=True)
            is_away = True
            time.sleep(PAUSE)
