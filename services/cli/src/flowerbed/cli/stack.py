"""`flowerbed up | down | status | logs`: the stack on this machine."""

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from flowerbed.cli.calling import Shown, call, example
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.output import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    NOT_RUNNING,
    coloured,
    is_terminal,
    print_json,
    print_json_line,
)
from flowerbed.cli.watching import Watch, changes

if TYPE_CHECKING:
    from flowerbed.embedded.progress import Progress
    from flowerbed.embedded.stack import Stack
    from flowerbed.embedded.status import ComponentStatus, StackStatus

StateDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FLOWERBED_STATE_DIR",
        file_okay=False,
        help="Where the stack keeps its data; by default under the user's data home.",
    ),
]


def register(app: typer.Typer) -> None:
    app.command(cls=Shown, epilog=example("flowerbed up --replicas 2"))(up)
    app.command(cls=Shown, epilog=example("flowerbed down"))(down)
    app.command(cls=Shown, epilog=example("flowerbed status --watch"))(status)
    app.command(cls=Shown, epilog=example("flowerbed logs lease --lines 20 --follow"))(logs)


def up(
    state_dir: StateDir = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of each service; kept for later starts, at first 1."),
    ] = None,
    nats_nodes: Annotated[
        int | None,
        typer.Option(
            "--nats-nodes", min=1, help="Servers of the NATS cluster, 1 or 3; chosen once."
        ),
    ] = None,
    observability: Annotated[
        bool | None,
        typer.Option(
            "--observability/--no-observability",
            help="Prometheus and Alertmanager beside the services; kept, at first without.",
            show_default=False,
        ),
    ] = None,
    superlink: Annotated[
        bool | None,
        typer.Option(
            "--superlink/--no-superlink",
            envvar="FLOWERBED_SUPERLINK",
            help="Flower's SuperLink beside the services, for `runtime: superlink`; kept, at first"
            " without.",
            show_default=False,
        ),
    ] = None,
    issuers: Annotated[
        Path | None,
        typer.Option(
            "--issuers",
            dir_okay=False,
            help="File with the OIDC issuers whose tokens the gateway takes; kept for later.",
        ),
    ] = None,
) -> None:
    """Start the stack on this machine, or find that it runs."""
    from flowerbed.embedded.control import up as start
    from flowerbed.embedded.layout import Layout

    is_first = not Layout.at(state_dir).api_token.exists()
    began = time.monotonic()
    steps = _Steps(is_quiet=call().as_json)
    try:
        with steps:
            stack = start(
                state_dir,
                progress=steps.show,
                replicas=replicas,
                nats_nodes=nats_nodes,
                observability=observability,
                superlink=superlink,
                issuers=issuers,
            )
    except KeyboardInterrupt:
        message = "interrupted; the stack goes on starting, `flowerbed down` ends it"
        raise CommandFailed(message, exit_code=INTERRUPTED) from None
    if call().as_json:
        print_json({"was_running": not steps.any, **_addresses(stack)})
        return
    if steps.any:
        _say(f"ready after {time.monotonic() - began:.1f} s")
    else:
        _say(f"the stack in {stack.state_dir} is running already")
    for name, value in _addresses(stack).items():
        _say(f"  {_NAMED[name]:<13} {value}")
    if is_first:
        _tell_token(stack)


def down(state_dir: StateDir = None) -> None:
    """End every process of the stack; its data stays."""
    from flowerbed.embedded.control import down as end

    ended = end(state_dir)
    if call().as_json:
        print_json({"running": False, "was_running": ended})
    else:
        typer.echo("the stack is down, its data is kept" if ended else "no stack was running")


def status(state_dir: StateDir = None, watch: Watch = False) -> None:
    """Show each process, its readiness and lags. Exit code: 0 all ready, 1 not all, 3 down."""
    from flowerbed.embedded.errors import NotRunning
    from flowerbed.embedded.layout import Layout
    from flowerbed.embedded.status import read_status

    layout = Layout.at(state_dir)
    try:
        for found in (
            changes(lambda: read_status(layout), _standing) if watch else [read_status(layout)]
        ):
            if call().as_json:
                print_json({**asdict(found), "ready": found.ready})
            else:
                _print_table(found)
    except NotRunning:
        if call().as_json:
            print_json({"state": "stopped", "state_dir": str(layout.root), "components": []})
        raise
    if not found.ready:
        raise typer.Exit(FAILED)


def logs(
    service: Annotated[str | None, typer.Argument(help="One of them; by default all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they grow.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of each.")] = 50,
    raw: Annotated[
        bool, typer.Option("--raw", help="As they were written, not in plain words.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """What the servers and services have written, a line of plain words for each."""
    from flowerbed.cli.plain_logs import in_words
    from flowerbed.embedded.layout import Layout
    from flowerbed.embedded.logfiles import follow as followed
    from flowerbed.embedded.logfiles import tail

    layout = Layout.at(state_dir)
    found = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if not found:
        message = f"no stack was ever started in {layout.root}"
        raise CommandFailed(message, exit_code=NOT_RUNNING)
    if service is not None and service not in found:
        message = f"no log is called {service!r}, there are {', '.join(found)}"
        raise CommandFailed(message, exit_code=BAD_INPUT)
    paths = [found[service]] if service else list(found.values())

    def show(component: str, line: str) -> None:
        if call().as_json:
            print_json_line({"component": component, "line": line})
            return
        told = line if raw else in_words(line)
        typer.echo(told if service else f"{component:<14} {told}")

    growing = followed(paths) if follow else None  # its place is taken before the tail is read
    for path in paths:
        for line in tail(path, lines).splitlines():
            show(path.stem, line)
    try:
        for component, line in growing or ():
            show(component, line)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _standing(found: "StackStatus") -> Any:
    """What makes two answers differ; lags rise and fall all the time."""
    return found.state, [(one.name, one.ready, one.pid, one.detail) for one in found.components]


class _Steps:
    """Progress of a start: a line a component, and on a terminal what is still awaited."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self.any = False
        self._is_quiet = is_quiet
        self._waiting: list[str] = []
        self._spinner = None
        if is_terminal() and not is_quiet:
            from flowerbed.cli.tables import console

            self._spinner = console().status("starting")

    def show(self, step: "Progress") -> None:
        self.any = True
        if self._is_quiet:
            return
        if step.step == "starting":
            self._waiting.append(step.component)
        elif step.step == "ready":
            self._waiting = [name for name in self._waiting if name != step.component]
            line = f"{step.component:<14} ready  {step.seconds:5.1f} s"
            if self._spinner is None:
                _say(line)
            else:
                self._spinner.console.print(f"[green]✓[/green] {line}")
        if self._spinner is not None:
            self._spinner.update(f"starting {', '.join(self._waiting)}")

    def __enter__(self) -> None:
        if self._spinner is not None:
            self._spinner.start()

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()


_NAMED = {
    "gateway": "gateway",
    "clients": "clients",
    "enrolment": "enrolment",
    "s3": "S3",
    "nats": "NATS",
    "api_token_file": "API token in",
    "ca_file": "CA in",
    "state_dir": "state in",
    "prometheus": "Prometheus",
}


def _addresses(stack: "Stack") -> dict[str, str]:
    """Where its parts are; Prometheus too, if it has one."""
    values = (
        stack.gateway_url, stack.client_url, stack.enrol_url, stack.s3.endpoint, stack.nats_url,
        str(stack.api_token_file), str(stack.ca_file), str(stack.state_dir),
    )  # fmt: skip
    found = dict(zip(list(_NAMED)[: len(values)], values, strict=True))
    return found | ({"prometheus": stack.prometheus_url} if stack.shape.observability else {})


def _tell_token(stack: "Stack") -> None:
    """Once, when it was made: for the dashboard and for other programs. The CLI finds it itself."""
    _say("")
    _say(f"open {stack.gateway_url}/ in a browser and sign in with the API token:")
    _say(f"  {stack.api_token}")
    _say(f"it is not shown again; it is kept in {stack.api_token_file}")


def _say(line: str) -> None:
    """Who reads may go away, as `head` does; the work goes on."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _print_table(found: "StackStatus") -> None:
    headings = ("name", "ready", "pid", "address", "lags", "restarts", "since (UTC)")
    rows = [headings, *(_row(item) for item in found.components)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    typer.echo(f"{found.state}, supervisor {found.supervisor_pid}, state in {found.state_dir}")
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = coloured(cells[1], {"yes": "green", "no": "red"}.get(row[1]))
        typer.echo("  ".join(cells).rstrip())
    for item in found.components:
        if item.detail:
            typer.echo(f"{item.name}: {item.detail}")


def _row(item: "ComponentStatus") -> tuple[str, ...]:
    lags = ", ".join(f"{name} {value:g}" for name, value in sorted(item.lags.items()))
    pid = "-" if item.pid is None else str(item.pid)
    since = (item.since or "-").removesuffix("+00:00").replace("T", " ")
    ready = "yes" if item.ready else "no"
    return item.name, ready, pid, item.address, lags or "-", str(item.restarts), since
