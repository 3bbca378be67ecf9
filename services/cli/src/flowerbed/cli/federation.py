"""`flowerbed federation`: submit a FederationSpec, see what becomes of it, stop it."""

import hashlib
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from flowerbed.cli.api import Api, Tenant
from flowerbed.cli.calling import Asking, Shown, call, example
from flowerbed.cli.completing import FederationId
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.log_lines import logs
from flowerbed.cli.output import BAD_INPUT, FAILED, INTERRUPTED, print_json
from flowerbed.cli.policy import policy
from flowerbed.cli.tables import moment, one_line, print_table
from flowerbed.cli.watching import Watch, changes
from flowerbed.cli.why import why
from flowerbed.contracts.apps import PUSHED

if TYPE_CHECKING:
    from flowerbed.cli.bundling import Push

app = typer.Typer(
    help="Submit, watch and stop federations.", no_args_is_help=True, add_completion=False
)

FED = "fed-305aa300bdb40319"
"""In examples."""
LONGEST_REASON = 60

SpecFile: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="FederationSpec as YAML or JSON; `-` reads stdin."),
]
Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Kept in the history.")]
Status: TypeAlias = Annotated[str | None, typer.Option("--status", help="e.g. running.")]


@app.command(cls=Shown, epilog=example("flowerbed federation validate examples/hospital.yaml"))
def validate(spec: SpecFile) -> None:
    """Check a FederationSpec here, without a stack: every broken rule at once."""
    problems = _problems(with_app(read_spec(spec), spec, lambda bundle, _: _digest(bundle)))
    if call().as_json:
        print_json({"is_valid": not problems, "problems": problems})
    elif problems:
        from flowerbed.cli.tables import problems_table

        problems_table(problems)
    else:
        typer.echo("the spec is valid")
    if problems:
        raise typer.Exit(BAD_INPUT)


@app.command(
    cls=Asking, epilog=example("flowerbed federation submit examples/hospital.yaml --watch")
)
def submit(
    spec: SpecFile,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help="Submission id: the same key is the same federation.", show_default="new"
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, with progress, until it has ended.")
    ] = False,
) -> None:
    """Submit a FederationSpec. Prints the federation's id.

    An app that is named by its folder is pushed first.
    """
    api = call().api()
    document = with_app(read_spec(spec), spec, lambda bundle, tenant: push(api, bundle, tenant))
    submitted = api.submit(document, key or str(uuid.uuid4()))
    identity = submitted["federation_id"]
    if watch:
        watch_to_its_end(api, identity)
    elif call().as_json:
        print_json(submitted)
    else:
        typer.echo(identity)
        typer.echo(f"see it run: flowerbed federation watch {identity}", err=True)


@app.command("list", cls=Asking, epilog=example("flowerbed federation list --status running"))
def list_federations(
    tenant: Tenant = None,
    status: Status = None,
    name: Annotated[str | None, typer.Option("--name", help="As its spec says.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many.")] = 50,
    watch: Watch = False,
) -> None:
    """The newest federations."""
    api = call().api()

    def look() -> list[dict[str, Any]]:
        page = api.get(
            "/federations", tenant=tenant, status=status, name=name, limit=limit, tries=2
        )
        found: list[dict[str, Any]] = page["federations"]
        return found

    for found in changes(look, _standing) if watch else [look()]:
        if call().as_json:
            print_json(found)
            continue
        rows = [
            (
                one["federation_id"], one["name"], one["tenant"], one["status"],
                f"{one['n_rounds_completed']}/{one['n_rounds']}", moment(one["created_at"]),
                one_line(one["reason"], LONGEST_REASON),
            )
            for one in found
        ]  # fmt: skip
        print_table(("id", "name", "tenant", "status", "rounds", "created", "reason"), rows)


@app.command(cls=Asking, epilog=example(f"flowerbed federation show {FED}"))
def show(
    federation_id: FederationId,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, with progress, until it has ended.")
    ] = False,
) -> None:
    """Where a federation stands, what it waits for, its rounds and clients."""
    api = call().api()
    if watch:
        watch_to_its_end(api, federation_id)
        return
    federation = api.federation(federation_id)
    if call().as_json:
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


app.command(cls=Asking, epilog=example(f"flowerbed federation why {FED} --watch"))(why)
app.command(cls=Asking, epilog=example(f"flowerbed federation policy {FED} --close-at 3"))(policy)
app.command(cls=Asking, epilog=example(f"flowerbed federation logs {FED} --tail 20 --follow"))(logs)


@app.command(cls=Asking, epilog=example(f"flowerbed federation events {FED} --output json"))
def events(
    federation_id: FederationId,
    after: Annotated[int, typer.Option("--after", min=0, help="Only past this position.")] = 0,
) -> None:
    """A federation's history: every service's events about it, oldest first."""
    found = call().api().history(federation_id, after)
    if call().as_json:
        print_json(found)
        return
    rows = [
        (
            str(one["position"]), moment(one["recorded_at"]), one["type"],
            f"{one['stream']}@{one['version']}",
        )
        for one in found
    ]  # fmt: skip
    print_table(("position", "recorded", "event", "stream@version"), rows)


@app.command(cls=Asking, epilog=example(f"flowerbed federation watch {FED} --timeout 600"))
def watch(
    federation_id: FederationId,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Give up after so many seconds.")
    ] = None,
) -> None:
    """Live progress until the federation has ended: exit code 0 if completed, 1 if not."""
    watch_to_its_end(call().api(), federation_id, timeout)


@app.command(cls=Asking, epilog=example(f"flowerbed federation pause {FED} --reason maintenance"))
def pause(federation_id: FederationId, reason: Reason = "") -> None:
    """Start no further exchange until it is resumed; the open one may end."""
    _command(federation_id, "pause", reason)


@app.command(cls=Asking, epilog=example(f"flowerbed federation resume {FED}"))
def resume(federation_id: FederationId) -> None:
    """Go on with a paused federation."""
    _command(federation_id, "resume", "")


@app.command(cls=Asking, epilog=example(f"flowerbed federation cancel {FED} --reason enough"))
def cancel(federation_id: FederationId, reason: Reason = "") -> None:
    """End a federation for good; what it has made stays."""
    _command(federation_id, "cancel", reason)


# --- parts ------------------------------------------------------------------


def _standing(found: list[dict[str, Any]]) -> list[tuple[str, str, int, str]]:
    return [
        (one["federation_id"], one["status"], one["n_rounds_completed"], one["reason"])
        for one in found
    ]


def _command(federation_id: str, verb: str, reason: str) -> None:
    answer = call().api().post(f"/federations/{federation_id}/{verb}", {"reason": reason})
    if call().as_json:
        print_json(answer)
        return
    done = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}[verb]
    typer.echo(f"{federation_id} {done}")


def watch_to_its_end(api: Api, federation_id: str, timeout: float | None = None) -> None:
    """Raises: Exit: it did not complete, or whoever watches was interrupted."""
    from flowerbed.cli.live import watch as watch_live
    from flowerbed.cli.tables import console

    as_json = call().as_json
    try:
        federation = watch_live(
            api, federation_id, console=console(stderr=as_json), timeout=timeout
        )
    except KeyboardInterrupt:
        typer.echo(
            f"\nit goes on without you: flowerbed federation watch {federation_id}", err=True
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(federation)
    if federation["status"] != "completed":
        raise typer.Exit(FAILED)


def read_spec(spec: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(spec) == "-" else spec.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{spec}: {error.strerror}", exit_code=BAD_INPUT) from error


def with_app(document: bytes, spec: Path, push: "Push") -> bytes:
    from flowerbed.cli.bundling import with_pushed_app

    place = Path() if str(spec) == "-" else spec.parent
    return with_pushed_app(document, place, push)


def push(api: Api, bundle: bytes, tenant: str) -> str:
    from flowerbed.cli.app import described, named

    pushed = api.push(bundle, tenant)
    typer.echo(f"pushed {named(pushed)}: {described(pushed)}", err=True)
    return named(pushed)


def _digest(bundle: bytes) -> str:
    return f"{PUSHED}{hashlib.sha256(bundle).hexdigest()}"


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
