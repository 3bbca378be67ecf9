"""Run an app's whole ServerApp, in a process of its own that ends with its parent:

python -m flowerbed.flower_apps.serve READ_FD WRITE_FD

It knows nothing of the control plane but two pipes: `grid_pipe` has what is said on them.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.supercore.task_identity import TaskIdentity

from flowerbed.flower_apps.contents import SERVER_NODE
from flowerbed.flower_apps.determinism import Clock, install
from flowerbed.flower_apps.forking import die_with
from flowerbed.flower_apps.grid_pipe import (
    ANSWERS,
    Answer,
    Differs,
    Done,
    Failed,
    Hello,
    Pull,
    Push,
)
from flowerbed.flower_apps.messages import save_arrays, settled
from flowerbed.flower_apps.outcome import Outcome, watch
from flowerbed.flower_apps.registry import load_from
from flowerbed.flower_apps.replayed_grid import NotDeterministic, ReplayedGrid
from flowerbed.flower_apps.seeded import seed_all

_LONGEST_REASON = 2000


class Pipes:
    """One question at a time from each thread; answers find theirs by number."""

    def __init__(self, lines: BinaryIO, out: BinaryIO) -> None:
        self._lines, self._out = lines, out
        self._writing = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Answer | Differs]] = {}
        self._numbers = count(1)

    def hello(self) -> Hello:
        return Hello.model_validate_json(self._lines.readline())

    def listen(self) -> None:
        threading.Thread(target=self._read, name="pipe", daemon=True).start()

    def number(self) -> int:
        return next(self._numbers)

    def ask(self, call: Push | Pull) -> Answer | Differs:
        answers: queue.SimpleQueue[Answer | Differs] = queue.SimpleQueue()
        self._waiting[call.call] = answers
        self.say(call)
        return answers.get()

    def say(self, line: Push | Pull | Done | Failed) -> None:
        with self._writing:
            self._out.write(line.line())
            self._out.flush()

    def _read(self) -> None:
        for line in self._lines:
            answer = ANSWERS.validate_json(line)
            self._waiting.pop(answer.call).put(answer)
        os._exit(0)


def main() -> None:
    read, write = map(int, sys.argv[1:])
    die_with(os.getppid())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    pipes = Pipes(os.fdopen(read, "rb"), os.fdopen(write, "wb"))
    hello = pipes.hello()
    pipes.listen()
    os.chdir(hello.work)
    pipes.say(serve(hello, pipes))
    os._exit(0)  # whatever threads the app has left


def serve(hello: Hello, pipes: Pipes) -> Done | Failed:
    """Run `main` to its end."""
    clock, outcome = Clock(hello.started_at, is_replayed=hello.is_replayed), Outcome()
    TaskIdentity.run_id = TaskIdentity.task_id = hello.run_id
    TaskIdentity.node_id = SERVER_NODE
    watch(outcome)
    install(clock, hello.seed)
    try:
        app = load_from(Path(hello.folder), hello.server_app)
        if not isinstance(app, ServerApp):
            raise TypeError(f"{hello.server_app} is {type(app).__name__}, not a ServerApp")
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # sums in one order, on any machine
        seed_all(hello.seed)
        context = Context(
            run_id=hello.run_id,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config=dict(hello.run_config),
        )
        with _ending_in_order():
            app(ReplayedGrid(hello, pipes, clock, outcome), context)
        return _done(hello, outcome)
    except NotDeterministic as error:
        return Failed(code="not-deterministic", reason=str(error)[:_LONGEST_REASON])
    except BaseException as error:  # whatever an app may raise, also SystemExit
        traceback.print_exc(file=sys.stderr)
        return Failed(code="app-failed", reason=_reason(error))


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """An app may also end by `sys.exit()`."""
    try:
        yield
    except SystemExit as error:
        if error.code not in (None, 0):
            raise


def _done(hello: Hello, outcome: Outcome) -> Done:
    path = Path(hello.outbox) / "arrays.safetensors"
    save_arrays(outcome.arrays or ArrayRecord(), path)
    sha256, size = settled(path)
    return Done(
        arrays_from=outcome.source,
        sha256=sha256,
        size=size,
        training=outcome.training,
        evaluation=outcome.evaluation,
        central=outcome.central,
    )


def _reason(error: BaseException) -> str:
    """The last line of the traceback, and the modules that it came through: no path."""
    frames = traceback.walk_tb(error.__traceback__)
    places = [f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in frames]
    last = "".join(traceback.format_exception_only(error)).strip()
    return f"{last} (in {' > '.join(places[1:][-6:])})"[:_LONGEST_REASON]


if __name__ == "__main__":
    main()
