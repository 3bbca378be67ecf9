"""`flowerbed audit`: who gave which command, when, and what became of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Api, CommandFailed, Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.output import BAD_INPUT, print_json
from flowerbed.cli.tables import moment, print_table

app = typer.Typer(add_completion=False)

_PAGE = 500


@app.command(cls=Asking, epilog=example("flowerbed audit --since 24h"))
def audit(
    tenant: Tenant = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only what this actor did, e.g. local-token.")
    ] = None,
    federation: Annotated[
        str | None, typer.Option("--federation", help="Only what was about this federation.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only after: 90m, 24h, 7d, or a date and time.")
    ] = None,
    status: Annotated[
        int | None, typer.Option("--status", min=100, max=599, help="Only with this answer.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
) -> None:
    """Every command that was given to the gateway, refused ones too, newest first. For admins."""
    wanted = {
        "tenant": tenant, "actor": actor, "federation": federation, "status": status,
        "since": _moment(since),
    }  # fmt: skip
    found = list(_rows(call().api(), limit, wanted))
    if call().as_json:
        print_json(found)
        return
    rows = [
        (
            moment(one["at"]), one["actor"] or f"({one['address'] or 'nobody'})", one["role"],
            one["tenant"], f"{one['method']} {one['path']}", one["status"], one["code"],
        )
        for one in found
    ]  # fmt: skip
    print_table(("at", "actor", "role", "tenant", "request", "status", "code"), rows)


def _rows(api: Api, limit: int, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    before = None
    while limit > 0:
        page = api.get("/audit", before=before, limit=min(limit, _PAGE), tries=2, **wanted)
        yield from page["rows"]
        limit -= len(page["rows"])
        before = page["next_before"]
        if before is None:
            return


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _moment(text: str | None) -> str | None:
    """`90m` ago, or what it says; a time without a zone is the reader's own."""
    if text is None:
        return None
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and len(number) < 7 and unit in _UNITS:
        ago = timedelta(**{_UNITS[unit]: int(number)})
        return (datetime.now(UTC) - ago).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError) as error:
        message = f"--since {text!r} is neither a time such as 2026-01-31T12:00 nor 90m, 24h, 7d"
        raise CommandFailed(message, exit_code=BAD_INPUT) from error
