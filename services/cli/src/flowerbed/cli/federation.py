"""`flowerbed federation`: submit a FederationSpec, see what becomes of it, stop it."""

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import (
    Api,
    CommandFailed,
    StateDir,
    Tenant,
    TokenFile,
    Url,
    connect,
    reporting,
)
from flowerbed.cli.output import BAD_INPUT, FAILED, print_json
from flowerbed.cli.policy import policy
from flowerbed.cli.tables import Format, Output
from flowerbed.cli.why import why

app = typer.Typer(
    help="Submit, watch and stop federations. Exit codes: 0 done, 1 failed, 2 bad input,"
    " 3 no stack.",
    no_args_is_help=True,
    add_completion=False,
)

FederationId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
SpecFile: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="FederationSpec as YAML or JSON; `-` reads stdin."),
]
Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Kept in the history.")]


@app.command()
def validate(spec: SpecFile, output: Output = Format.table) -> None:
    """Check a FederationSpec here, without a stack: every broken rule at once."""
    with reporting():
        document = _read(spec)
        problems = _problems(document)
        if output is Format.json:
            print_json({"is_valid": not problems, "problems": problems})
        elif problems:
            from flowerbed.cli.tables import problems_table

            problems_table(problems)
        else:
            typer.echo("the spec is valid")
        if problems:
            raise typer.Exit(BAD_INPUT)


@app.command()
def submit(
    spec: SpecFile,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="Submission id: the same key is the same federation.", show_default="new"
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until it has ended.")] = False,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Submit a FederationSpec. Prints the federation's id."""
    with reporting(as_json=output is Format.json):
        document = _read(spec)
        api = connect(url, token_file, state_dir)
        submitted = api.submit(document, key or str(uuid.uuid4()))
        identity = submitted["federation_id"]
        if watch:
            _watch(api, identity, output, timeout=None)
            return
        if output is Format.json:
            print_json(submitted)
            return
        typer.echo(identity)
        typer.echo(f"see it run: flowerbed federation watch {identity}", err=True)


@app.command("list")
def list_federations(
    tenant: Tenant = None,
    status: Annotated[str | None, typer.Option("--status", help="e.g. running.")] = None,
    name: Annotated[str | None, typer.Option("--name")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 50,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """The newest federations."""
    with reporting(as_json=output is Format.json):
        api = connect(url, token_file, state_dir)
        page = api.get(
            "/federations", tenant=tenant, status=status, name=name, limit=limit, tries=2
        )
        if output is Format.json:
            print_json(page["federations"])
            return
        from flowerbed.cli.tables import moment, print_table

        rows = [
            (
                one["federation_id"], one["name"], one["tenant"], one["status"],
                f"{one['n_rounds_completed']}/{one['n_rounds']}", moment(one["created_at"]),
                one["reason"],
            )
            for one in page["federations"]
        ]  # fmt: skip
        print_table(("id", "name", "tenant", "status", "rounds", "created", "reason"), rows)


@app.command()
def show(
    federation_id: FederationId,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Where a federation stands, what it waits for, its rounds and clients."""
    with reporting(as_json=output is Format.json):
        federation = connect(url, token_file, state_dir).federation(federation_id)
        if output is Format.json:
            print_json(federation)
            return
        from flowerbed.cli.live import picture
        from flowerbed.cli.tables import console, problems_table

        out = console()
        out.print(picture(federation, rounds_shown=len(federation["rounds"])))
        if final := federation["final"]:
            out.print(f"\nfinal checkpoint {final['uri']}\nsha256 {final['sha256']}", markup=False)
        if federation["problems"]:
            problems_table(federation["problems"])


app.command()(why)
app.command()(policy)


@app.command()
def events(
    federation_id: FederationId,
    after: Annotated[int, typer.Option("--after", min=0, help="Only past this position.")] = 0,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """A federation's history: every service's events about it, oldest first."""
    with reporting(as_json=output is Format.json):
        found = _history(connect(url, token_file, state_dir), federation_id, after)
        if output is Format.json:
            print_json(found)
            return
        from flowerbed.cli.tables import moment, print_table

        rows = [
            (
                str(one["position"]), moment(one["recorded_at"]), one["type"],
                f"{one['stream']}@{one['version']}",
            )
            for one in found
        ]  # fmt: skip
        print_table(("position", "recorded", "event", "stream@version"), rows)


@app.command()
def watch(
    federation_id: FederationId,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Give up after so many seconds.")
    ] = None,
    output: Output = Format.table,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Live progress until the federation has ended: exit code 0 if completed, 1 if not."""
    with reporting(as_json=output is Format.json):
        _watch(connect(url, token_file, state_dir), federation_id, output, timeout)


@app.command()
def pause(
    federation_id: FederationId,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Start no further exchange until it is resumed; the open one may end."""
    with reporting():
        _command(connect(url, token_file, state_dir), federation_id, "pause", reason)


@app.command()
def resume(
    federation_id: FederationId,
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """Go on with a paused federation."""
    with reporting():
        _command(connect(url, token_file, state_dir), federation_id, "resume", "")


@app.command()
def cancel(
    federation_id: FederationId,
    reason: Reason = "",
    url: Url = None,
    token_file: TokenFile = None,
    state_dir: StateDir = None,
) -> None:
    """End a federation for good; what it has made stays."""
    with reporting():
        _command(connect(url, token_file, state_dir), federation_id, "cancel", reason)


# --- parts ------------------------------------------------------------------


def _command(api: Api, federation_id: str, verb: str, reason: str) -> None:
    api.post(f"/federations/{federation_id}/{verb}", {"reason": reason})
    done = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}[verb]
    typer.echo(f"{federation_id} {done}")


def _watch(api: Api, federation_id: str, output: Format, timeout: float | None) -> None:
    from flowerbed.cli.live import watch as watch_live
    from flowerbed.cli.tables import console

    as_json = output is Format.json
    try:
        federation = watch_live(
            api, federation_id, console=console(stderr=as_json), timeout=timeout
        )
    except KeyboardInterrupt:
        typer.echo(
            f"\nit goes on without you: flowerbed federation watch {federation_id}", err=True
        )
        raise typer.Exit(130) from None
    if as_json:
        print_json(federation)
    if federation["status"] != "completed":
        raise typer.Exit(FAILED)


def _history(api: Api, federation_id: str, after: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = api.get(f"/federations/{federation_id}/events", after=after, limit=1000, tries=2)
        if not page["events"]:
            return found
        found += page["events"]
        after = page["next_after"]


def _read(spec: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(spec) == "-" else spec.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{spec}: {error.strerror}", exit_code=BAD_INPUT) from error


def _problems(document: bytes) -> list[dict[str, Any]]:
    from flowerbed.contracts.problems import SpecRefused, parse_spec
    from flowerbed.events.documents import DocumentUnreadable, read_document

    try:
        parse_spec(read_document(document))
    except DocumentUnreadable as error:
        raise CommandFailed(f"the spec cannot be read: {error}", exit_code=BAD_INPUT) from error
    except SpecRefused as refused:
        return [problem.model_dump() for problem in refused.problems]
    return []
