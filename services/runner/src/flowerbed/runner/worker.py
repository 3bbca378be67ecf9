"""The warm worker: one process a lease, which loads the Flower app once and runs it per order.

Started by the agent as `python -m flowerbed.runner.worker`, or forked by one that was started so
with `--nursery` (see `flower_apps.forking`); it ends when the agent does. Standard input and output
are the agent's. What the app prints or logs goes to standard error, which the agent reads too: into
its own log, and on to the operator if the site allows that.
"""

import ctypes
import gc
import importlib
import io
import logging
import os
import queue
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import flwr
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import save_file

from flowerbed.contracts.values import Scalar
from flowerbed.flower_apps import forking, registry
from flowerbed.flower_apps.contents import read_content, whole_message, write_content
from flowerbed.flower_apps.encoding import NotOfTheBase, write_encoded
from flowerbed.flower_apps.forms import Form, travels
from flowerbed.flower_apps.messages import (
    BadReply,
    elements_of,
    metrics_of,
    order_message,
    record_of,
    settled,
    write_arrays,
)
from flowerbed.flower_apps.seeded import seed_all
from flowerbed.runner import app_state, storage
from flowerbed.runner.pipe import AppFailed, Hello, Ready, Request, Result
from flowerbed.runner.recorder import Recorder
from flowerbed.runner.work_folder import WorkFolder

logger = logging.getLogger("flowerbed.worker")


def main() -> None:
    """Serve the agent until it goes away."""
    forking.die_with(os.getppid())
    if forking.FLAG in sys.argv:
        forking.serve(_load)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # this process ends by being killed
    _set_up_logging()
    lines = _read_lines(os.fdopen(os.dup(0), "rb"))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    hello = Hello.model_validate_json(lines.get())
    try:
        server = AppServer(hello)
    except Exception as error:  # whatever an app's import may raise
        _answer(out, AppFailed(code="app-failed", trace=trace_of(error)))
        return
    python = sys.version.partition(" ")[0]
    logger.info("%s is loaded: Flower %s, Python %s", hello.app, flwr.__version__, python)
    _answer(out, Ready())
    n_modules = 0
    while True:
        n_modules = _give_back(n_modules)
        request = Request.model_validate_json(lines.get())
        _answer(out, server.answer(request))


def _set_up_logging() -> None:
    """An app's own loggers are heard from INFO on; Flower's has a handler of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: record.name.partition(".")[0] != "flwr")
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _load(app: str) -> None:
    """Import what a worker of that app will, as far as it is ours; half of torch is imported with
    the first optimizer."""
    if app in registry.BUILTIN:
        registry.load_client_app(app)
    if "torch" in sys.modules:
        importlib.import_module("torch._dynamo")


def _read_lines(pipe: BinaryIO) -> "queue.SimpleQueue[bytes]":
    """Lines as they come; the pipe's end ends the process, even in the middle of a training."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in pipe:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="pipe", daemon=True).start()
    return lines


def _give_back(n_frozen: int) -> int:
    """Leave to others, until the next order comes, the memory that the last one took.

    `n_frozen` modules were set aside from garbage collection before; as many are now. Looking
    through all of torch takes longer than a small model's training, and it loads half of itself
    with the first order.
    """
    gc.collect()  # see `answer`
    if len(sys.modules) > n_frozen:
        gc.freeze()
    with suppress(AttributeError):  # of glibc alone
        ctypes.CDLL(None).malloc_trim(0)
    return len(sys.modules)


def _answer(out: BinaryIO, answer: Ready | Result | AppFailed) -> None:
    out.write(answer.line())
    out.flush()


class AppServer:
    """The loaded app and what it remembers between orders."""

    def __init__(self, hello: Hello) -> None:
        TaskIdentity.run_id = hello.run_id
        TaskIdentity.node_id = hello.node_id
        TaskIdentity.task_id = hello.run_id
        self._app, run_config = _loaded(hello)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)
        self._context = Context(
            run_id=hello.run_id,
            node_id=hello.node_id,
            node_config={**hello.node_config, "data-path": hello.data_path},
            state=RecordDict(),
            run_config=run_config,
        )
        self._remembers: str | None = None
        self._is_settled = True
        self._recorder = _recorder() if hello.is_traced else None

    def answer(self, request: Request) -> Result | AppFailed:
        """Run the app. What it remembers counts once it has given a result, not before."""
        try:
            folder = WorkFolder(Path(request.folder))
            self._remember(request.state_path)
            self._context.node_config["checkpoint-dir"] = str(folder.checkpoint)
            message = self._message(request)
            seed_all(request.seed)
            self._is_settled = False
            if self._recorder is not None:
                self._recorder.take()  # of a run that failed
            started = time.perf_counter()
            reply = self._app(message, self._context)
            seconds = time.perf_counter() - started
            del message
            gc.collect()  # Flower's records refer to themselves, and hold a model each
            result = _result(reply, request, folder, self._context.state, seconds)
            if self._recorder is not None:
                result = result.model_copy(update={"spans": self._recorder.take()})
            folder.finish(result)
        except BadReply as error:
            return AppFailed(code="bad-reply", trace=str(error))
        except Exception as error:  # whatever an app may raise
            with suppress(OSError):  # the log may be on a full disk
                traceback.print_exc(file=sys.stderr)
            code: Literal["disk-full", "app-failed"]
            code = "disk-full" if storage.is_full(error) else "app-failed"
            return AppFailed(code=code, trace=trace_of(error))
        self._remembers, self._is_settled = result.state_sha256, True
        return result

    def _message(self, request: Request) -> Message:
        base, whole = Path(request.base_path), request.message
        if whole is None:
            node_id = self._context.node_id
            frozen = None if request.frozen_path is None else Path(request.frozen_path)
            return order_message(base, request.config, request.message_type, node_id, frozen)
        self._context.node_id = whole.node_id
        # What Flower's simulation tells each node, where the site does not say otherwise.
        self._context.node_config.setdefault("partition-id", whole.place)
        self._context.node_config.setdefault("num-partitions", whole.n_nodes)
        return whole_message(
            read_content(base),
            request.message_type,
            whole.node_id,
            whole.message_id,
            whole.group_id,
            self._context.run_id,
        )

    def _remember(self, state_path: str | None) -> None:
        """Begin with what the app remembered after the last work that counts."""
        wanted = None if state_path is None else Path(state_path).stem
        if self._is_settled and wanted == self._remembers:
            return
        state = RecordDict() if state_path is None else app_state.load(Path(state_path))
        self._context.state = state
        self._remembers, self._is_settled = wanted, True


def _loaded(hello: Hello) -> tuple[ClientApp, dict[str, Scalar]]:
    """The app, and the run config that it finds in its context."""
    if hello.folder is None:
        app = registry.load_client_app(hello.app)
        return app, registry.find(hello.app).default_config()
    app = registry.load_from(Path(hello.folder), hello.client_app)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{hello.client_app} is {type(app).__name__}, not a ClientApp")
    return app, dict(hello.run_config)


def _recorder() -> Recorder | None:
    """None where the site's environment has no OpenTelemetry: the app cannot have spans either."""
    try:
        return Recorder.installed()
    except ImportError as error:
        logger.info("no spans of the app: %s", error)
        return None


def _result(
    reply: Message, request: Request, folder: WorkFolder, state: RecordDict, seconds: float
) -> Result:
    metrics, left_out = metrics_of(reply)
    update: dict[str, Any] = {}
    if request.message is not None:
        sha256, size = write_content(reply.content, folder.update)
        update = {"sha256": sha256, "size": size}
    elif request.has_update:
        update = _update(reply, request, folder)
    try:
        state_sha256 = app_state.save(state, folder.app_state)
    except app_state.TooLarge as error:
        raise BadReply(str(error)) from error
    return Result(
        **{"sha256": None, **update},
        metrics=metrics,
        left_out=left_out,
        seconds=seconds,
        state_sha256=state_sha256,
    )


def _update(reply: Message, request: Request, folder: WorkFolder) -> dict[str, Any]:
    """Write the reply's arrays, in the form that is wanted; what the result says of them.

    Raises:
        BadReply: there are none, or none that have a step from the base.
    """
    if request.form is None:
        sha256, size = write_arrays(reply, folder.update)
        return {"sha256": sha256, "size": size}
    terms, arrays = request.form, elements_of(record_of(reply))
    arrays = {name: one for name, one in arrays.items() if travels(name, terms.trainable)}
    if not arrays:
        raise BadReply(f"the reply has no array called {' or '.join(terms.trainable)}")
    left = None if request.left_path is None else Path(request.left_path)
    base = (Path(request.base_path), request.base_sha256)
    form = Form.named(terms.form, terms.block, terms.fraction)
    if form is None:
        save_file(arrays, folder.update)
        sha256, size = settled(folder.update)
        return {"sha256": sha256, "size": size, "form_error": 0.0}
    try:
        error, rest = write_encoded(form, arrays, base, folder.update, left, terms.trainable)
    except NotOfTheBase as trouble:
        raise BadReply(str(trouble)) from trouble
    sha256, size = settled(folder.update)
    told = {"sha256": sha256, "size": size, "form_error": error}
    if rest:
        save_file(rest, folder.left)
        told["left_sha256"] = settled(folder.left)[0]
    return told


def trace_of(error: BaseException) -> str:
    """A traceback that names modules instead of files: nothing of where this site keeps things."""
    lines: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines += [trace_of(cause), "which led to"]
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "?")
        if module != __name__:
            lines.append(f"  {module}:{line} in {frame.f_code.co_name}")
    lines.append("".join(traceback.format_exception_only(error)).strip())
    return "\n".join(lines)


if __name__ == "__main__":
    main()
