"""Starting and stopping a stack from outside: `up` and `down`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flowerbed.contracts.issuers import Issuer
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import BadInput, ComponentFailed, EmbeddedError
from flowerbed.embedded.issuers import keep_issuers, kept_issuers, wanted_issuers
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.leftovers import end_leftovers
from flowerbed.embedded.lock import held
from flowerbed.embedded.logfiles import open_log, tail
from flowerbed.embedded.observers import refuse_missing
from flowerbed.embedded.progress import Progress, received
from flowerbed.embedded.record import StackRecord, read_record, write_record
from flowerbed.embedded.shape import Links, Shape, read_shape, to_json, wanted_shape
from flowerbed.embedded.stack import Stack

START_SECONDS = 180.0
KEEPER_SECONDS = 10.0
"""How long `up` leaves it to the keeper to start another supervisor."""
STOP_SECONDS = 90.0
RESTORING = "restoring"
"""A file in the state directory for as long as its stack is not whole."""


def up(
    state_dir: Path | None = None,
    services: tuple[str, ...] = SERVICES,
    progress: Callable[[Progress], None] = lambda step: None,
    *,
    replicas: int | None = None,
    nats_nodes: int | None = None,
    links: Links | None = None,
    observability: bool | None = None,
    superlink: bool | None = None,
    issuers: Path | None = None,
) -> Stack:
    """Return when the stack runs and all of it is ready; one that runs already is left as it is.

    Each service has `replicas` processes, NATS is a cluster of `nats_nodes`; both as before when
    not given, and at first 1. `links`: ports (of proxies, say) that services and clients are told
    in place of those of `postgres`, `nats`, `s3` and `client_door`; `{}` ends them.
    `observability`: Prometheus, and Alertmanager where there is one, watch the services.
    `superlink`: Flower's SuperLink runs beside the services, for sites that have SuperNodes.
    `issuers`: a file with the OIDC issuers whose tokens the gateway takes; else those of before.

    Raises:
        BadInput: the directory or a service's name is no good, no stack can be of that size, the
            one that runs is of another, or there is no Prometheus.
        ComponentFailed: something did not start; then nothing is left running.
    """
    if unknown := set(services) - set(SERVICES):
        raise BadInput(f"service {min(unknown)!r} is none of {', '.join(SERVICES)}")
    if not sys.platform.startswith("linux"):
        raise BadInput(f"an embedded stack runs on Linux, not on {sys.platform}")
    layout = Layout.at(state_dir)
    if services and (layout.root / RESTORING).exists():
        raise BadInput(
            f"a restore into {layout.root} was cut short; delete it and restore into it again"
        )
    layout.make()
    shape = wanted_shape(layout, replicas, nats_nodes, links, observability, superlink)
    if services and shape.observability:
        refuse_missing()
    trusted = wanted_issuers(layout, issuers)
    began = time.monotonic()
    while (waited := time.monotonic() - began) < START_SECONDS:
        record = read_record(layout)
        if record is not None and record.is_supervised():
            if record.state == "running":
                _refuse_another_shape(layout, shape)
                _refuse_other_issuers(layout, trusted)
                return Stack(layout.root)
            time.sleep(0.05)  # another `up` or `down` is at work
        elif record is not None and record.is_kept() and waited < KEEPER_SECONDS:
            time.sleep(0.05)  # another supervisor is on its way
        else:
            keep_issuers(layout, trusted)
            if _launch(layout, services, shape, progress):
                return Stack(layout.root)
            time.sleep(0.05)
    raise EmbeddedError(f"the stack in {layout.root} did not become ready in {START_SECONDS} s")


def down(state_dir: Path | None = None) -> bool:
    """End every process of the stack, keep its data. False if there was nothing to end.

    Works without a supervisor as well, from what it wrote down before it was killed.
    """
    layout = Layout.at(state_dir)
    has_ended = False
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while (record := read_record(layout)) is not None:
        if record.is_supervised():
            has_ended = True
            _end_supervisor(record)
        if record.keeper is not None:
            record.keeper.signal(signal.SIGKILL)
        with held(layout) as ours:
            if ours:
                return _clear_up(layout) or has_ended
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the stack in {layout.root} did not end")
        time.sleep(0.05)  # a keeper has just become a supervisor
    return False


def _end_supervisor(record: StackRecord) -> None:
    record.supervisor.signal(signal.SIGTERM)
    if not record.supervisor.wait(STOP_SECONDS):
        record.supervisor.signal(signal.SIGKILL)
        record.supervisor.wait(5)


def _clear_up(layout: Layout) -> bool:
    """End what runs without a supervisor, and leave no record that one could go on from."""
    latest = read_record(layout)
    if latest is None:
        return False
    ended = end_leftovers(latest)
    if latest.state not in ("stopped", "failed"):
        write_record(layout, replace(latest, state="stopped", components=(), keeper=None))
    return bool(ended)


def _refuse_another_shape(layout: Layout, wanted: Shape) -> None:
    runs = read_shape(layout)
    for name, is_now, asked in (
        ("--replicas", runs.replicas, wanted.replicas),
        ("--nats-nodes", runs.nats_nodes, wanted.nats_nodes),
        ("links", dict(runs.links), dict(wanted.links)),
        ("--observability", runs.observability, wanted.observability),
        ("--superlink", runs.superlink, wanted.superlink),
    ):
        if is_now != asked:
            raise BadInput(
                f"the stack in {layout.root} runs with {name} {is_now}, not {asked};"
                " end it first with `flowerbed down`"
            )


def _refuse_other_issuers(layout: Layout, wanted: tuple[Issuer, ...]) -> None:
    if wanted != kept_issuers(layout):
        raise BadInput(
            f"the stack in {layout.root} runs with other issuers than --issuers names;"
            " end it first with `flowerbed down`"
        )


def _launch(
    layout: Layout,
    services: tuple[str, ...],
    shape: Shape,
    progress: Callable[[Progress], None],
) -> bool:
    """Start a supervisor and listen to it until the stack is ready; False if there is one."""
    reader, writer = os.pipe()
    log = layout.log("supervisor")
    with open_log(log) as output:
        launcher = subprocess.Popen(
            (
                sys.executable, "-P", "-m", "flowerbed.embedded.supervisor",
                "--state-dir", str(layout.root),
                "--services", ",".join(services), "--shape", to_json(shape),
                "--progress", str(writer),
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            pass_fds=(writer,),
            start_new_session=True,
        )  # fmt: skip
    os.close(writer)
    last = None
    for last in received(reader):
        if last.step not in ("taken", "done", "failed"):
            progress(last)
    launcher.wait()
    if last is None or last.step not in ("taken", "done", "failed"):
        record = read_record(layout)
        if record is not None and (record.is_kept() or record.is_supervised()):
            return False  # it was killed, another will be there soon
        raise ComponentFailed("supervisor", "it ended without a word", tail(log, 15))
    if last.step == "failed":
        raise _failure(last)
    return last.step == "done"


def _failure(last: Progress) -> ComponentFailed:
    reason = last.reason.removeprefix(f"{last.component} did not start: ")
    return ComponentFailed(last.component, reason, last.log_tail)
