"""Of `flowerbed client`, what a person at the control plane does: invite, list, revoke.

The functions are registered on the `client` group beside the agent's own commands.
"""

import re
from typing import Annotated

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.output import BAD_INPUT, print_json
from flowerbed.cli.tables import moment, print_table

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd]?)")


def register(app: typer.Typer) -> None:
    app.command(cls=Asking, epilog=example("flowerbed client invite --tags hospital --ttl 7d"))(
        invite
    )
    app.command("list", cls=Asking, epilog=example("flowerbed client list --tenant default"))(
        list_clients
    )
    app.command(
        cls=Asking, epilog=example("flowerbed client revoke client-1a4be1220ec2 --reason lost")
    )(revoke)


def invite(
    tenant: Annotated[str, typer.Option("--tenant", help="Whose client it will be.")] = "default",
    tags: Annotated[
        str, typer.Option("--tags", help="What a spec's client_selector asks for, as `a,b`.")
    ] = "",
    ttl: Annotated[
        str, typer.Option("--ttl", help="How long the key can be used, e.g. 30m, 24h, 7d.")
    ] = "24h",
) -> None:
    """Make a single-use invite key for one site. Prints the key, and nothing else, on stdout."""
    body = {
        "tenant": tenant,
        "tags": [tag.strip() for tag in tags.split(",") if tag.strip()],
        "ttl_seconds": seconds(ttl),
    }
    made = call().api().post("/clients/invites", body)
    if call().as_json:
        print_json(made)
        return
    typer.echo(made["invite"])
    typer.echo(f"for client {made['client_id']}, until {made['expires_at']}", err=True)


def list_clients(tenant: Tenant = None) -> None:
    """Every client that was ever invited."""
    found = list(call().api().pages("/clients", "clients", tenant=tenant, limit=500))
    if call().as_json:
        print_json(found)
        return
    rows = [
        (
            one["client_id"], one["tenant"], one["status"], one["tags"],
            one["n_federations"], moment(one["enrolled_at"]),
            moment(one["certificate_expires_at"]),
        )
        for one in found
    ]  # fmt: skip
    columns = ("client", "tenant", "status", "tags", "federations", "enrolled", "certificate")
    print_table(columns, rows)


def revoke(
    client_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Kept in the history.")] = "",
) -> None:
    """Shut a client out for good: its certificate and its leases are worth nothing from now on."""
    answer = call().api().post(f"/clients/{client_id}/revoke", {"reason": reason})
    if call().as_json:
        print_json(answer)
    else:
        typer.echo(f"{client_id} revoked")


def seconds(duration: str) -> int:
    """`90`, `90s`, `30m`, `24h`, `7d`."""
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        message = f"--ttl {duration!r} is no duration such as 30m, 24h or 7d"
        raise CommandFailed(message, exit_code=BAD_INPUT)
    return int(match[1]) * _UNITS[match[2] or "s"]
