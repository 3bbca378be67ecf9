"""`flowerbed webhook`: have events sent to an address, signed; see how far it has come."""

from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import StateDir, Tenant, TokenFile, Url, connect, reporting
from flowerbed.cli.output import print_json
from flowerbed.cli.tables import Format, Output

app = typer.Typer(
    help="Have events sent to an address, signed. Exit codes: 0 done, 1 failed, 2 bad input,"
    " 3 no stack.",
    no_args_is_help=True,
    add_completion=False,
)

WebhookId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
After: TypeAlias = Annotated[int, typer.Option("--after", min=0, help="Only past this position.")]


@app.command()
def create(
    target: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="https://…; http only to this machine.")
    ],
    federation: Annotated[
        str | None, typer.Option("--federation", help="Only events about this one.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be given again.")
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            "--after",
            min=0,
            help="Begin behind this position; 0: all of the history.",
            show_default="what is to come",
        ),
    ] = None,
    tenant: Tenant = None,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Send events to an address. Prints the secret that signs them, once, on stdout."""
    with reporting(as_json=output is Format.json):
        wanted = {
            "url": target, "tenant": tenant, "federation_id": federation, "types": types or None,
            "after": after,
        }  # fmt: skip
        body = {name: value for name, value in wanted.items() if value is not None}
        made = connect(url, token_file, state_dir).post("/webhooks", body)
        if output is Format.json:
            print_json(made)
            return
        typer.echo(made["secret"])
        typer.echo(f"webhook {made['webhook_id']}; its secret is not shown again", err=True)


@app.command("list")
def list_webhooks(
    tenant: Tenant = None,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Every webhook, and how far each has come."""
    with reporting(as_json=output is Format.json):
        found = connect(url, token_file, state_dir).get("/webhooks", tenant=tenant, tries=2)
        if output is Format.json:
            print_json(found["webhooks"])
        else:
            _print(found["webhooks"])


@app.command()
def show(
    webhook_id: WebhookId,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """One webhook: its cursor, how much lies behind it, its last error."""
    with reporting(as_json=output is Format.json):
        found = connect(url, token_file, state_dir).get(f"/webhooks/{webhook_id}", tries=2)
        if output is Format.json:
            print_json(found)
            return
        _print([found])
        if found["types"]:
            typer.echo(f"only {', '.join(found['types'])}")
        if told := found["reason"] or found["last_error"]:
            typer.echo(f"{found['n_failures']} failures in a row: {told}")


@app.command()
def replay(
    webhook_id: WebhookId,
    after: After,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Send everything past a position again. Goes on with one that was paused or disabled."""
    _command(webhook_id, "replay", {"after": after}, connect_to=(url, token_file, state_dir))
    typer.echo(f"{webhook_id} goes on behind {after}")


@app.command()
def pause(
    webhook_id: WebhookId,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Send nothing until it is resumed; nothing is lost meanwhile."""
    _command(webhook_id, "pause", {}, connect_to=(url, token_file, state_dir))
    typer.echo(f"{webhook_id} paused")


@app.command()
def resume(
    webhook_id: WebhookId,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Go on where it was, at once."""
    _command(webhook_id, "resume", {}, connect_to=(url, token_file, state_dir))
    typer.echo(f"{webhook_id} resumed")


@app.command()
def delete(
    webhook_id: WebhookId,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Send nothing any more, and forget its cursor and its secret."""
    with reporting():
        connect(url, token_file, state_dir).delete(f"/webhooks/{webhook_id}")
        typer.echo(f"{webhook_id} deleted")


def _command(webhook_id: str, verb: str, body: dict[str, Any], connect_to: Any) -> None:
    with reporting():
        connect(*connect_to).post(f"/webhooks/{webhook_id}/{verb}", body)


def _print(webhooks: list[dict[str, Any]]) -> None:
    from flowerbed.cli.tables import moment, print_table

    rows = [
        (
            one["webhook_id"], one["tenant"] or "(all)", one["federation_id"], one["url"],
            one["status"], one["position"], _lag(one["lag"]), moment(one["delivered_at"]),
            one["reason"] or one["last_error"],
        )
        for one in webhooks
    ]  # fmt: skip
    columns = (
        "id", "tenant", "federation", "address", "status", "position", "lag", "delivered", "error",
    )  # fmt: skip
    print_table(columns, rows)


def _lag(n: int) -> str:
    return f"{n} or more" if n >= 1000 else str(n)
