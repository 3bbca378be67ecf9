"""The warm worker: one process a lease, which loads the Flower app once and runs it per order.

Started by the agent as `python -m flowerbed.runner.worker`; it ends when the agent does. Standard
input and output are the agent's pipes. What the app prints or logs goes to standard error, which
the agent reads too: into its own log, and on to the operator if the site allows that.
"""

import ctypes
import gc
import hashlib
import io
import logging
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import flwr
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.message import Array
from flwr.clientapp import ClientApp
from flwr.common.constant import SType
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from flowerbed.contracts.values import Scalar
from flowerbed.flower_apps import registry
from flowerbed.runner import app_state, storage
from flowerbed.runner.pipe import AppFailed, Hello, Ready, Request, Result
from flowerbed.runner.recorder import Recorder
from flowerbed.runner.work_folder import WorkFolder

logger = logging.getLogger("flowerbed.worker")

_PR_SET_PDEATHSIG = 1
_TTL_SECONDS = 30 * 24 * 3600.0


class BadReply(Exception):
    """The app's answer is not one that a strategy could use."""


def main() -> None:
    """Serve the agent until it goes away."""
    parent = os.getppid()
    _die_with(parent)
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


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


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
            _seed(request.seed)
            self._is_settled = False
            if self._recorder is not None:
                self._recorder.take()  # of a run that failed
            started = time.perf_counter()
            reply = self._app(message, self._context)
            seconds = time.perf_counter() - started
            del message
            gc.collect()  # Flower's records refer to themselves, and hold a model each
            result = _result(reply, request.has_update, folder, self._context.state, seconds)
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

    def _remember(self, state_path: str | None) -> None:
        """Begin with what the app remembered after the last work that counts."""
        wanted = None if state_path is None else Path(state_path).stem
        if self._is_settled and wanted == self._remembers:
            return
        state = RecordDict() if state_path is None else app_state.load(Path(state_path))
        self._context.state = state
        self._remembers, self._is_settled = wanted, True

    def _message(self, request: Request) -> Message:
        with safe_open(request.base_path, framework="np", backend="pread") as file:
            arrays = {name: _array(file.get_tensor(name)) for name in _in_order(file.keys())}
        content = RecordDict(
            {"arrays": ArrayRecord(arrays), "config": ConfigRecord(dict(request.config))}
        )
        return Message(
            content,
            dst_node_id=self._context.node_id,
            message_type=request.message_type,
            ttl=_TTL_SECONDS,
        )


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


def _in_order(names: Iterable[str]) -> list[str]:
    """A list of arrays has numbers for names and means their order; the file sorts them as text."""
    found = list(names)
    return sorted(found, key=int) if all(name.isdecimal() for name in found) else found


def _seed(seed: int) -> None:
    """Also an app that forgets to seed must give the same bytes for the same order."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


def _result(
    reply: Message, has_update: bool, folder: WorkFolder, state: RecordDict, seconds: float
) -> Result:
    if reply.has_error():
        raise BadReply(f"the app answered with error {reply.error.code}")
    metrics: dict[str, float | int] = {}
    left_out: list[str] = []
    for record in reply.content.metric_records.values():
        for name, value in record.items():
            if isinstance(value, int | float):
                metrics[name] = value
            else:
                left_out.append(name)
    sha256, size = None, 0
    if has_update:
        sha256, size = _write(reply, folder.update)
    try:
        state_sha256 = app_state.save(state, folder.app_state)
    except app_state.TooLarge as error:
        raise BadReply(str(error)) from error
    return Result(
        sha256=sha256,
        size=size,
        metrics=metrics,
        left_out=tuple(left_out),
        seconds=seconds,
        state_sha256=state_sha256,
    )


def _write(reply: Message, path: Path) -> tuple[str, int]:
    """The update as a safetensors file, on disk when this returns; the same arrays, the same bytes.

    Raises:
        BadReply: the reply holds no arrays, or more than one record of them.
    """
    records = list(reply.content.array_records.values())
    if len(records) != 1 or not records[0]:
        raise BadReply(f"the reply has {len(records)} array records, expected one with arrays")
    save_file({name: _elements(array) for name, array in records[0].items()}, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def _array(elements: NDArray[Any]) -> Array:
    """What `Array(elements)` makes, byte for byte, with one copy instead of three."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(elements))
    data = b"".join((header.getvalue(), elements.reshape(-1).view(np.uint8).data))
    return Array(str(elements.dtype), elements.shape, SType.NUMPY, data)


def _elements(array: Array) -> NDArray[Any]:
    """What `array.numpy()` gives, in C order, where it lies in memory already if it can be."""
    file = io.BytesIO(array.data)  # shares the bytes
    if array.stype != SType.NUMPY or np.lib.format.read_magic(file) != (1, 0):
        return np.asarray(array.numpy(), order="C")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    there = np.ndarray(shape, dtype, array.data, file.tell(), order=order)
    return np.asarray(there, order="C")


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
