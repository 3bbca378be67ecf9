"""`flowerbed up | down | status | logs`: the stack on this machine."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowerbed.cli.output import (
    BAD_INPUT,
    NOT_RUNNING,
    coloured,
    console,
    fail,
    is_terminal,
    print_json,
    stack_errors,
)

if TYPE_CHECKING:
    from flowerbed.embedded.progress import Progress
    from flowerbed.embedded.stack import Stack
    from flowerbed.embedded.status import ComponentStatus, StackStatus


class Output(StrEnum):
    table = "table"
    json = "json"


StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="FLOWERBED_STATE_DIR",
        file_okay=False,
        help="Where the stack keeps its data; by default under the user's data home.",
    ),
]


def register(app: typer.Typer) -> None:
    for command in (up, down, status, logs):
        app.command()(command)


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
) -> None:
    """Start the stack on this machine, or find that it runs."""
    from flowerbed.embedded.control import up as start

    began = time.monotonic()
    steps = _Steps()
    with stack_errors():
        try:
            with steps:
                stack = start(
                    state_dir,
                    progress=steps.show,
                    replicas=replicas,
                    nats_nodes=nats_nodes,
                    observability=observability,
                )
        except KeyboardInterrupt:
            fail("interrupted; the stack goes on starting, `flowerbed down` ends it", 130)
    if steps.any:
        _say(f"ready after {time.monotonic() - began:.1f} s")
    else:
        _say(f"the stack in {stack.state_dir} is running already")
    _tell_addresses(stack)


def down(state_dir: StateDir = None) -> None:
    """End every process of the stack; its data stays."""
    from flowerbed.embedded.control import down as end

    with stack_errors():
        ended = end(state_dir)
    typer.echo("the stack is down, its data is kept" if ended else "no stack was running")


def status(
    state_dir: StateDir = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = (
        Output.table
    ),
) -> None:
    """Show each process, its readiness and lags. Exit code: 0 all ready, 1 not all, 3 down."""
    from flowerbed.embedded.errors import NotRunning
    from flowerbed.embedded.layout import Layout
    from flowerbed.embedded.status import read_status

    layout = Layout.at(state_dir)
    try:
        found = read_status(layout)
    except NotRunning as error:
        if output is Output.json:
            print_json({"state": "stopped", "state_dir": str(layout.root), "components": []})
            raise typer.Exit(NOT_RUNNING) from None
        fail(f"{error}; start it with `flowerbed up`", NOT_RUNNING)
    if output is Output.json:
        print_json({**asdict(found), "ready": found.ready})
    else:
        _print_table(found)
    if not found.ready:
        raise typer.Exit(1)


def logs(
    service: Annotated[str | None, typer.Argument(help="One of them; by default all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they grow.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of each.")] = 50,
    state_dir: StateDir = None,
) -> None:
    """What the servers and services have written."""
    from flowerbed.embedded.layout import Layout
    from flowerbed.embedded.logfiles import follow as followed
    from flowerbed.embedded.logfiles import tail

    layout = Layout.at(state_dir)
    found = {path.stem: path for path in sorted(layout.logs.glob("*.log"))}
    if not found:
        fail(f"no stack was ever started in {layout.root}", NOT_RUNNING)
    if service is not None and service not in found:
        fail(f"no log is called {service!r}, there are {', '.join(found)}", BAD_INPUT)
    paths = [found[service]] if service else list(found.values())

    def show(component: str, line: str) -> None:
        typer.echo(line if service else f"{component:<14} {line}")

    growing = followed(paths) if follow else None  # its place is taken before the tail is read
    for path in paths:
        for line in tail(path, lines).splitlines():
            show(path.stem, line)
    try:
        for component, line in growing or ():
            show(component, line)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


class _Steps:
    """Progress of a start: a line a component, and on a terminal what is still awaited."""

    def __init__(self) -> None:
        self.any = False
        self._waiting: list[str] = []
        self._spinner = console().status("starting") if is_terminal() else None

    def show(self, step: Progress) -> None:
        self.any = True
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


def _tell_addresses(stack: Stack) -> None:
    observed = stack.shape.observability
    for name, value in (
        ("gateway", stack.gateway_url),
        ("clients", stack.client_url),
        ("enrolment", stack.enrol_url),
        ("S3", stack.s3.endpoint),
        ("NATS", stack.nats_url),
        *([("Prometheus", stack.prometheus_url)] if observed else []),
        ("API token in", str(stack.api_token_file)),
        ("CA in", str(stack.ca_file)),
        ("state in", str(stack.state_dir)),
    ):
        _say(f"  {name:<13} {value}")


def _say(line: str) -> None:
    """Who reads may go away, as `head` does; the work goes on."""
    try:
        typer.echo(line)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _print_table(found: StackStatus) -> None:
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


def _row(item: ComponentStatus) -> tuple[str, ...]:
    lags = ", ".join(f"{name} {value:g}" for name, value in sorted(item.lags.items()))
    pid = "-" if item.pid is None else str(item.pid)
    since = (item.since or "-").removesuffix("+00:00").replace("T", " ")
    ready = "yes" if item.ready else "no"
    return item.name, ready, pid, item.address, lags or "-", str(item.restarts), since
