"""`flowerbed client`: the agent at this site."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerbed.cli import client_policy, invites
from flowerbed.cli.calling import Shown, call, example
from flowerbed.cli.choosing import StateDirOption, chosen
from flowerbed.cli.output import print_json, print_json_line
from flowerbed.cli.watching import Watch, changes
from flowerbed.runner.control import log_lines, running_agent, start_agent, stop_agent
from flowerbed.runner.errors import BadInput
from flowerbed.runner.keeping import Kept, read_kept, running_keeper
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import Status, read_status

app = typer.Typer(help="Invite sites, and run the agent at a site.", no_args_is_help=True)
invites.register(app)
app.add_typer(client_policy.app, name="policy")


CLOCK_WORTH_SAYING = 10.0
"""Seconds."""


class Protocol(StrEnum):
    grpc = "grpc"
    http = "http/protobuf"


@app.command(
    cls=Shown,
    epilog=example("flowerbed client start --dataset local:/srv/heart --invite @invite.key"),
)
def start(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The site's data: local:/path/to/folder. They never leave it. Needed once:"
            " without it, all is as it was before, but for what is given.",
        ),
    ] = None,
    invite: Annotated[
        str | None,
        typer.Option(
            envvar="FLOWERBED_INVITE",
            help="The invite key; @FILE reads it from a file, - from standard input. Needed once.",
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="https address to enrol at, instead of the invite's.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="What the data are for, if their dataset.json does not say.")
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(help="Send this site's spans to that OTLP collector: http://HOST:4318."),
    ] = None,
    otlp_protocol: Annotated[
        Protocol | None, typer.Option(help="How to speak to it; at first http/protobuf.")
    ] = None,
    otlp_allow: Annotated[
        list[str] | None,
        typer.Option(
            "--otlp-allow",
            metavar="ORIGIN",
            help="Let a federation have its spans sent there if its spec asks for it:"
            " https://HOST:PORT. May be repeated.",
            show_default="none",
        ),
    ] = None,
    logs: Annotated[
        bool | None,
        typer.Option(
            "--logs/--no-logs",
            help="Hand the app's log lines, scrubbed, to the operator, or none; kept.",
            show_default="as before, at first --logs",
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="Run the apps in another environment: its Python, with flwr in it. Kept; `none`"
            " ends it.",
            show_default="the agent's own",
        ),
    ] = None,
    node_config: Annotated[
        str | None,
        typer.Option(
            "--node-config",
            metavar="'NAME=VALUE ...'",
            help="What apps find in context.node_config besides data-path. Kept.",
            show_default="nothing",
        ),
    ] = None,
    superlink: Annotated[
        bool | None,
        typer.Option(
            "--superlink/--no-superlink",
            help="Run a SuperNode for each lease of a federation with `runtime: superlink`; kept.",
            show_default="as before, at first --no-superlink",
        ),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run here, not in the background.")
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Enrol if needed, then take part: answers once the agent polls for work."""
    state = StateDir.at(state_dir)
    protocol = None if otlp_protocol is None else otlp_protocol.value
    given = {
        "task": task,
        "otlp_endpoint": otlp_endpoint,
        "otlp_protocol": protocol,
        "otlp_allowed": otlp_allow,
        "logs": logs,
        "python": python,
        "node_config": node_config,
        "superlink": superlink,
    }
    before = _kept(state) if dataset is None else _first(state, dataset, task)
    settings = replace(before, **chosen(given))
    if running_agent(state) is not None:
        if AgentSettings.load(state) != settings:
            raise BadInput("the agent runs already, with other settings: stop it first")
        _print_status(state)
        return
    _enrol_if_needed(state, _read_invite(invite), server)
    settings.save(state)
    if foreground:
        _run_here(state)
        return
    start_agent(state)
    _print_status(state)


@app.command(cls=Shown, epilog=example("flowerbed client stop --release"))
def stop(
    release: Annotated[
        bool,
        typer.Option("--release", help="Give the leases back instead of letting them run out."),
    ] = False,
    state_dir: StateDirOption = None,
) -> None:
    """Stop the agent; work under way is finished if that takes a few seconds, else abandoned."""
    was_running = stop_agent(StateDir.at(state_dir), release=release)
    if call().as_json:
        print_json({"running": False, "was_running": was_running})
    else:
        typer.echo("stopped" if was_running else "was not running")


@app.command(cls=Shown, epilog=example("flowerbed client status --watch"))
def status(state_dir: StateDirOption = None, watch: Watch = False) -> None:
    """Who this client is, what it does, and what it has done."""
    state = StateDir.at(state_dir)
    if not watch:
        _print_status(state)
        return
    for place, _ in enumerate(changes(lambda: _document(state), lambda document: document)):
        if place and not call().as_json:
            typer.echo("")
        _print_status(state)


@app.command(cls=Shown, epilog=example("flowerbed client log --lines 20 --follow"))
def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")
    ] = 50,
    state_dir: StateDirOption = None,
) -> None:
    """The agent's log."""
    try:
        for line in log_lines(StateDir.at(state_dir), lines, follow=follow):
            print_json_line({"line": line}) if call().as_json else typer.echo(line)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command(cls=Shown, epilog=example("flowerbed client doctor --state-dir /srv/flowerbed-client"))
def doctor(state_dir: StateDirOption = None) -> None:
    """Check this site's set-up, and say what to do about each finding. Changes nothing."""
    from flowerbed.cli.doctor import client_checks
    from flowerbed.cli.doctor.report import examine

    examine(client_checks.checks(StateDir.at(state_dir)))


def _kept(state: StateDir) -> AgentSettings:
    """What was chosen before. A dataset that is gone by now is the agent's matter: it says so."""
    try:
        return AgentSettings.load(state)
    except BadInput as error:
        raise BadInput("--dataset local:/path/to/folder is needed at the first start") from error


def _first(state: StateDir, uri: str, task: str | None) -> AgentSettings:
    """For this dataset: of what was chosen before only where apps run, and whether lines are handed
    out, lest a site that keeps them hands them out by oversight."""
    from flowerbed.runner.dataset import URI_PREFIX, Dataset

    dataset = f"{URI_PREFIX}{Dataset.open(uri, task).folder}"
    try:
        before = AgentSettings.load(state)
        return AgentSettings(dataset=dataset, logs=before.logs, python=before.python)
    except BadInput:
        return AgentSettings(dataset=dataset)


def _read_invite(invite: str | None) -> str | None:
    """An argument can be read by every user of the machine: a file or a pipe cannot."""
    if invite == "-":
        return sys.stdin.readline().strip()
    if invite is not None and invite.startswith("@"):
        try:
            return Path(invite[1:]).read_text().strip()
        except OSError as error:
            raise BadInput(f"{invite[1:]} cannot be read: {error.strerror}") from error
    return invite


def _enrol_if_needed(state: StateDir, invite: str | None, server: str | None) -> None:
    # Imported here: the other commands answer without loading an HTTP client.
    from flowerbed.runner.enrol import ensure_enrolled

    ensure_enrolled(state, invite, server)


def _run_here(state: StateDir) -> None:
    from flowerbed.runner.launch import run_agent

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run_agent(state)


def _document(state: StateDir) -> dict[str, Any]:
    """All that the agent and its keeper say of themselves."""
    status, kept = _found(state)
    return {
        "running": running_agent(state) is not None,
        **status.model_dump(mode="json"),
        "keeper": None if kept is None else {"pid": kept.pid, "restarts": kept.restarts},
    }


def _found(state: StateDir) -> tuple[Status, Kept | None]:
    status = read_status(state)
    if status is None:
        raise BadInput(f"no agent ever ran in {state.root}")
    return status, read_kept(state) if running_keeper(state) is not None else None


def _print_status(state: StateDir) -> None:
    if call().as_json:
        print_json(_document(state))
        return
    status, kept = _found(state)
    for name, value in _rows(status, kept, is_running=running_agent(state) is not None):
        typer.echo(f"{name:<12} {value}")


def _rows(status: Status, kept: Kept | None, *, is_running: bool) -> Iterator[tuple[str, str]]:
    yield "client", f"{status.client_id} (tenant {status.tenant})"
    if is_running:
        yield "agent", f"{status.phase}, pid {status.pid}"
    else:
        yield "agent", "not running" if kept is None else "being started again"
    if kept is not None and kept.restarts:
        times = "once" if kept.restarts == 1 else f"{kept.restarts} times"
        at = f"{kept.changed_at:%Y-%m-%d %H:%M:%S} UTC"
        yield "keeper", f"pid {kept.pid}, has started it again {times}: it {kept.last_end}, {at}"
    elif kept is not None:
        yield "keeper", f"pid {kept.pid}"
    elif is_running:
        yield "keeper", "none: nobody starts the agent again if it is killed"
    yield "server", status.server
    yield "certificate", f"until {status.certificate_expires_at:%Y-%m-%d %H:%M} UTC"
    if is_running and abs(status.clock_wrong_by) > CLOCK_WORTH_SAYING:
        yield "clock", _clock_words(status.clock_wrong_by)
    yield "dataset", status.dataset or "not read yet"
    for lease in status.leases if is_running else ():
        yield "lease", f"{lease.federation_id}, epoch {lease.epoch}, {lease.app}: {lease.doing}"
    counts = [f"{kind} {count}" for kind, count in sorted(status.finished.items())]
    yield "finished", ", ".join(counts) or "nothing yet"
    if status.last_work is not None:
        work = status.last_work
        yield "last work", f"{work.work_id}: {work.outcome}, {work.at:%Y-%m-%d %H:%M:%S} UTC"
    if status.last_error is not None:
        error = status.last_error
        yield "last error", f"{error.message}, {error.at:%Y-%m-%d %H:%M:%S} UTC"


def _clock_words(wrong_by: float) -> str:
    side = "ahead of" if wrong_by > 0 else "behind"
    return f"{abs(wrong_by):.0f} s {side} the control plane's, which is the one that counts here"
