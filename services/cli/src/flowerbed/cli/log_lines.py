"""`flowerbed federation logs`: what the ClientApps write at their sites, or a whole ServerApp."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Api
from flowerbed.cli.calling import call
from flowerbed.cli.completing import FederationId
from flowerbed.cli.failing import CommandFailed, Unreachable
from flowerbed.cli.output import BAD_INPUT, coloured, print_json, print_json_line
from flowerbed.cli.tables import moment

INTERVAL = 1.0
LAST_LOOKS = 3
"""How often to look for last words after the end."""
MOST_TAIL = 2_000

_UUID, _BEGINNING = 36, 8

Page = dict[str, Any]


def logs(
    federation_id: FederationId,
    client: Annotated[
        str | None,
        typer.Option(
            "--client",
            help="Id or label of a client, or how it begins: `flowerbed federation show` has both.",
            show_default="all clients",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come, until it has ended.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", min=0, max=MOST_TAIL, help="How many of the last lines.")
    ] = 200,
    after: Annotated[
        int | None,
        typer.Option("--after", min=0, help="All past this position, instead of the last ones."),
    ] = None,
    server: Annotated[
        bool, typer.Option("--server", help="Of the app's whole ServerApp, not of its ClientApps.")
    ] = False,
) -> None:
    """What the ClientApps write: their log lines and prints, scrubbed at the sites.

    Best effort: a site may hand out some of its lines, or keep them all to itself.
    """
    if server and client is not None:
        raise CommandFailed("--server and --client are of two kinds of lines", exit_code=BAD_INPUT)
    api, source = call().api(), _Source(federation_id, client, is_server=server)
    first = _first(api, source, tail, after)
    if call().as_json and not follow:
        print_json(first)
        return
    many = len(first.get("clients", ())) > 1
    for page in _pages(api, first, source) if follow else [first]:
        for line in page["lines"]:
            if call().as_json:
                print_json_line(line)
            else:
                typer.echo(told(line, with_client=many))
    for note in () if call().as_json else notes(first):
        typer.echo(note, err=True)


def told(line: Mapping[str, Any], *, with_client: bool) -> str:
    """One line for a person."""
    who = f"{_short(line['label']) or line['client_id']}  " if with_client else ""
    text = line["text"]
    if line["kind"] != "line":
        text = coloured(f"[{text}]", "yellow")
    return f"{moment(line['at'])}  {who}{text}"


def _short(label: str | None) -> str:
    """A label as far as `--client` needs it: the task, and how the uuid begins."""
    text = label or ""
    return text if len(text) <= _UUID else text[: len(text) - _UUID + _BEGINNING]


def notes(page: Page) -> list[str]:
    """What is to be said where there are no lines."""
    if "clients" not in page:
        return [] if page["lines"] else ["no lines of a ServerApp: `server_app: whole` has some"]
    keeping = [one["label"] or one["client_id"] for one in page["clients"] if one["keeps_lines"]]
    found = [f"{name} keeps its log lines at the site" for name in keeping]
    if not page["lines"] and not keeping:
        found.append(
            "no lines" if page["clients"] else "no client was ever in it: there are no lines"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose lines are asked for."""

    federation_id: str
    client: str | None
    is_server: bool

    def read(self, api: Api, **asked: Any) -> Page:
        kind = "server-logs" if self.is_server else "logs"
        page: Page = api.get(
            f"/federations/{self.federation_id}/{kind}", client=self.client, **asked
        )
        return page


def _first(api: Api, source: _Source, tail: int, after: int | None) -> Page:
    if after is None:
        return source.read(api, tail=tail, tries=2)
    page = source.read(api, after=after, tries=2)
    whole = page
    while page["lines"]:
        page = source.read(api, after=page["next_after"], tries=2)
        whole = {**page, "lines": [*whole["lines"], *page["lines"]]}
    return whole


def _pages(api: Api, first: Page, source: _Source) -> Iterator[Page]:
    """Page by page, until the federation is over and has said its last words."""
    yield (page := first)
    after = first["next_after"]
    n_quiet = 0
    while page["is_open"] or n_quiet < LAST_LOOKS:
        if not page["lines"]:
            time.sleep(INTERVAL)
        try:
            page = source.read(api, after=after)
        except Unreachable:
            time.sleep(INTERVAL)
            continue
        after = page["next_after"]
        n_quiet = 0 if page["lines"] or page["is_open"] else n_quiet + 1
        yield page
