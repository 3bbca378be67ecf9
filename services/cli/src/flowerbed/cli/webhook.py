"""`flowerbed webhook`: have events sent to an address, signed; see how far it has come."""

from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, call, example
from flowerbed.cli.output import print_json
from flowerbed.cli.tables import moment, one_line, print_table

app = typer.Typer(
    help="Have events sent to an address, signed.", no_args_is_help=True, add_completion=False
)

HOOK = "whk-4f1c2a7be0d3"
"""In examples."""
LONGEST_ERROR = 60

WebhookId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
After: TypeAlias = Annotated[int, typer.Option("--after", min=0, help="Only past this position.")]


@app.command(
    cls=Asking,
    epilog=example("flowerbed webhook create https://example.org/hook --type fl.round.completed"),
)
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
) -> None:
    """Send events to an address. Prints the secret that signs them, once, on stdout."""
    wanted = {
        "url": target, "tenant": tenant, "federation_id": federation, "types": types or None,
        "after": after,
    }  # fmt: skip
    body = {name: value for name, value in wanted.items() if value is not None}
    made = call().api().post("/webhooks", body)
    if call().as_json:
        print_json(made)
        return
    typer.echo(made["secret"])
    typer.echo(f"webhook {made['webhook_id']}; its secret is not shown again", err=True)


@app.command("list", cls=Asking, epilog=example("flowerbed webhook list"))
def list_webhooks(tenant: Tenant = None) -> None:
    """Every webhook, and how far each has come."""
    found = call().api().get("/webhooks", tenant=tenant, tries=2)["webhooks"]
    if call().as_json:
        print_json(found)
    else:
        _print(found)


@app.command(cls=Asking, epilog=example(f"flowerbed webhook show {HOOK}"))
def show(webhook_id: WebhookId) -> None:
    """One webhook: its cursor, how much lies behind it, its last error."""
    found = call().api().get(f"/webhooks/{webhook_id}", tries=2)
    if call().as_json:
        print_json(found)
        return
    _print([found])
    if found["types"]:
        typer.echo(f"only {', '.join(found['types'])}")
    if told := found["reason"] or found["last_error"]:
        typer.echo(f"{found['n_failures']} failures in a row: {told}")


@app.command(cls=Asking, epilog=example(f"flowerbed webhook replay {HOOK} --after 1200"))
def replay(webhook_id: WebhookId, after: After) -> None:
    """Send everything past a position again. Goes on with one that was paused or disabled."""
    answer = call().api().post(f"/webhooks/{webhook_id}/replay", {"after": after})
    _confirm(answer, f"{webhook_id} goes on behind {after}")


@app.command(cls=Asking, epilog=example(f"flowerbed webhook pause {HOOK}"))
def pause(webhook_id: WebhookId) -> None:
    """Send nothing until it is resumed; nothing is lost meanwhile."""
    answer = call().api().post(f"/webhooks/{webhook_id}/pause")
    _confirm(answer, f"{webhook_id} paused")


@app.command(cls=Asking, epilog=example(f"flowerbed webhook resume {HOOK}"))
def resume(webhook_id: WebhookId) -> None:
    """Go on where it was, at once."""
    answer = call().api().post(f"/webhooks/{webhook_id}/resume")
    _confirm(answer, f"{webhook_id} resumed")


@app.command(cls=Asking, epilog=example(f"flowerbed webhook delete {HOOK}"))
def delete(webhook_id: WebhookId) -> None:
    """Send nothing any more, and forget its cursor and its secret."""
    call().api().delete(f"/webhooks/{webhook_id}")
    _confirm({"webhook_id": webhook_id, "status": "deleted"}, f"{webhook_id} deleted")


def _confirm(answer: Any, words: str) -> None:
    if call().as_json:
        print_json(answer)
    else:
        typer.echo(words)


def _print(webhooks: list[dict[str, Any]]) -> None:
    rows = [
        (
            one["webhook_id"], one["tenant"] or "(all)", one["federation_id"], one["url"],
            one["status"], one["position"], _lag(one["lag"]), moment(one["delivered_at"]),
            one_line(one["reason"] or one["last_error"] or "", LONGEST_ERROR),
        )
        for one in webhooks
    ]  # fmt: skip
    columns = (
        "id", "tenant", "federation", "address", "status", "position", "lag", "delivered", "error",
    )  # fmt: skip
    print_table(columns, rows)


def _lag(n: int) -> str:
    return f"{n} or more" if n >= 1000 else str(n)
