"""`flowerbed client`: the agent at this site."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flowerbed.cli import invites
from flowerbed.runner.control import log_lines, running_agent, start_agent, stop_agent
from flowerbed.runner.errors import BadInput, RunnerError
from flowerbed.runner.keeping import Kept, read_kept, running_keeper
from flowerbed.runner.settings import AgentSettings
from flowerbed.runner.state import STATE_DIR_VARIABLE, StateDir
from flowerbed.runner.status import Status, read_status

app = typer.Typer(help="Invite sites, and run the agent at a site.", no_args_is_help=True)
app.command()(invites.invite)
app.command("list")(invites.list_clients)
app.command()(invites.revoke)


CLOCK_WORTH_SAYING = 10.0
"""Seconds."""


class Output(StrEnum):
    text = "text"
    json = "json"


class Protocol(StrEnum):
    grpc = "grpc"
    http = "http/protobuf"


StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar=STATE_DIR_VARIABLE,
        help="Where this client keeps its identity and its journal.",
        show_default="flowerbed/client in the user's data home",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to answer.")]


@app.command()
def start(
    dataset: Annotated[
        str, typer.Option(help="The site's data: local:/path/to/folder. They never leave it.")
    ],
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
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run here, not in the background.")
    ] = False,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Enrol if needed, then take part: answers once the agent polls for work."""
    state = StateDir.at(state_dir)
    with _readable_errors():
        settings = _settings(dataset, task, otlp_endpoint, otlp_protocol)
        if running_agent(state) is not None:
            if AgentSettings.load(state) != settings:
                raise BadInput(
                    "the agent runs already, with another dataset, task or collector: stop it first"
                )
            _print_status(state, output)
            return
        _enrol_if_needed(state, _read_invite(invite), server)
        settings.save(state)
        if foreground:
            _run_here(state)
            return
        start_agent(state)
        _print_status(state, output)


@app.command()
def stop(
    release: Annotated[
        bool,
        typer.Option("--release", help="Give the leases back instead of letting them run out."),
    ] = False,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Stop the agent; work under way is finished if that takes a few seconds, else abandoned."""
    was_running = stop_agent(StateDir.at(state_dir), release=release)
    if output is Output.json:
        typer.echo(json.dumps({"running": False, "was_running": was_running}))
    else:
        typer.echo("stopped" if was_running else "was not running")


@app.command()
def status(state_dir: StateDirOption = None, output: OutputOption = Output.text) -> None:
    """Who this client is, what it does, and what it has done."""
    with _readable_errors():
        _print_status(StateDir.at(state_dir), output)


@app.command()
def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="How many of the last lines.")] = 50,
    state_dir: StateDirOption = None,
) -> None:
    """The agent's log."""
    with _readable_errors():
        try:
            for line in log_lines(StateDir.at(state_dir), lines, follow=follow):
                typer.echo(line)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


@contextmanager
def _readable_errors() -> Iterator[None]:
    """One line and an exit code: 2 for what the person can put right, 1 for the rest."""
    try:
        yield
    except RunnerError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, BadInput) else 1) from error
    except OSError as error:  # a full disk, say
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _settings(
    uri: str, task: str | None, otlp_endpoint: str | None, otlp_protocol: Protocol | None
) -> AgentSettings:
    from flowerbed.runner.dataset import URI_PREFIX, Dataset

    if otlp_endpoint is not None and not otlp_endpoint.startswith(("http://", "https://")):
        raise BadInput(f"--otlp-endpoint is {otlp_endpoint!r}, not http://HOST:PORT or https://…")
    dataset = Dataset.open(uri, task)
    return AgentSettings(
        dataset=f"{URI_PREFIX}{dataset.folder}",
        task=task,
        otlp_endpoint=otlp_endpoint,
        otlp_protocol=None if otlp_protocol is None else otlp_protocol.value,
    )


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


def _print_status(state: StateDir, output: Output) -> None:
    process = running_agent(state)
    status = read_status(state)
    if status is None:
        raise BadInput(f"no agent ever ran in {state.root}")
    kept = read_kept(state) if running_keeper(state) is not None else None
    if output is Output.json:
        document = {
            "running": process is not None,
            **status.model_dump(mode="json"),
            "keeper": None if kept is None else {"pid": kept.pid, "restarts": kept.restarts},
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for name, value in _rows(status, kept, is_running=process is not None):
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
