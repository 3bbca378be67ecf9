"""`flowerbed app`: bring a Flower app of your own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flowerbed.cli.api import Tenant
from flowerbed.cli.calling import Asking, Shown, call, example
from flowerbed.cli.output import print_json
from flowerbed.cli.tables import moment, print_table

app = typer.Typer(help="Bring Flower apps of your own.", no_args_is_help=True, add_completion=False)

APP = "fab:9f2c…"
"""In examples."""


@app.command(cls=Asking, epilog=example("flowerbed app push examples/quickstart"))
def push(
    path: Annotated[
        Path, typer.Argument(metavar="DIR|FILE.fab", help="A Flower app's folder, or its FAB.")
    ],
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", help="Whose app it is.", show_default="default, or your own"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="FILE",
            help="Your key, of `app key`: sites that trust it allow the app.",
            show_default="unsigned",
        ),
    ] = None,
) -> None:
    """Build the app with Flower's own builder and store it. Prints what a spec calls it.

    The same bytes are one app, however often they are pushed.
    """
    from flowerbed.cli.bundling import bundle_of, signed_bundle_of

    raw = bundle_of(path) if key is None else signed_bundle_of(path, key)
    pushed = call().api().push(raw, tenant)
    if call().as_json:
        print_json(pushed)
        return
    typer.echo(named(pushed))
    typer.echo(described(pushed), err=True)


@app.command("key", cls=Shown, epilog=example("flowerbed app key publisher.pem"))
def show_key(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key lies.")],
) -> None:
    """Make a key to sign apps with, where there is none. Prints its public half, for sites.

    A site allows all that the key signs: flowerbed client policy allow --publisher ed25519:…
    """
    from flowerbed.runner.publishers import load_key, make_key, name_of

    there = path.exists()
    name = name_of(load_key(path) if there else make_key(path))
    if call().as_json:
        print_json({"publisher": name, "is_new": not there})
        return
    typer.echo(name)
    if not there:
        typer.echo(f"a new key in {path}: who has it can sign in your name", err=True)


@app.command("list", cls=Asking, epilog=example("flowerbed app list --tenant acme"))
def list_apps(tenant: Tenant = None) -> None:
    """The apps that were pushed, newest first."""
    found = list(call().api().pages("/apps", "apps", tenant=tenant))
    if call().as_json:
        print_json(found)
        return
    rows = [
        (
            one["app"], one["name"], one["version"], one["publisher"], one["tenant"],
            str(one["size"]), moment(one["pushed_at"]), one["pushed_by"],
        )
        for one in found
    ]  # fmt: skip
    names = ("app", "name", "version", "publisher", "tenant", "bytes", "pushed", "by")
    print_table(names, rows)


@app.command(cls=Asking, epilog=example(f"flowerbed app show {APP}"))
def show(
    name: Annotated[str, typer.Argument(metavar="APP", help="fab:SHA256, or the digest alone.")],
    tenant: Tenant = None,
) -> None:
    """What an app says of itself, and who pushed it where."""
    from flowerbed.contracts.apps import PUSHED

    digest = name.removeprefix(PUSHED)
    found: list[dict[str, Any]] = call().api().get(f"/apps/{digest}", tenant=tenant)["apps"]
    if call().as_json:
        print_json(found)
        return
    for one in found:
        for key in ("app", "name", "version", "publisher", "size", "tenant", "uri"):
            typer.echo(f"{key:<10} {one[key]}")
        typer.echo(f"{'pushed':<10} {moment(one['pushed_at'])}, by {one['pushed_by'] or 'nobody'}")


def named(pushed: dict[str, Any]) -> str:
    from flowerbed.contracts.apps import PUSHED

    return f"{PUSHED}{pushed['sha256']}"


def described(pushed: dict[str, Any]) -> str:
    about = f"{pushed['name']} {pushed['version']} of {pushed['publisher']}"
    return f"{about}, {pushed['size']} bytes, pushed by {pushed['pushed_by'] or 'nobody'}"
