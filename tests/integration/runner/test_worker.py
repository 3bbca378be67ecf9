"""What the worker makes of an app's answer, in this process."""

import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from safetensors.numpy import load, save_file

from flowerbed.aggregator.decoding import decode_file
from flowerbed.contracts.signed import UpdateTerms
from flowerbed.flower_apps.forms import Form
from flowerbed.flower_apps.initialize import write_initial_checkpoint
from flowerbed.runner import app_state, worker
from flowerbed.runner.pipe import AppFailed, Hello, Request, Result
from flowerbed.runner.work_folder import WorkFolder
from tests.integration.runner.conftest import BASE

Reply = Callable[[Message, Context], Message]


@pytest.fixture
def server(folder: Path, tiny_installed: None) -> worker.AppServer:
    hello = Hello(app="tiny", data_path=str(folder), run_id=1, node_id=2)
    return worker.AppServer(hello)


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., Request]:
    (tmp_path / "base").write_bytes(BASE)
    folder = WorkFolder(tmp_path / "work" / "one")
    folder.make()

    def request(**config: Any) -> Request:
        return Request(
            message_type="train", base_path=str(tmp_path / "base"),
            folder=str(folder.path), has_update=True, seed=1,
            config={"seed": 1, "server-round": 1, **config},
        )  # fmt: skip

    return request


def test_update_is_written_as_it_is_named(
    server: worker.AppServer, request_for: Callable[..., Request]
) -> None:
    request = request_for()
    first, second = server.answer(request), server.answer(request)
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert WorkFolder(Path(request.folder)).finished() == second
    update = WorkFolder(Path(request.folder)).update.read_bytes()
    assert (first.sha256, first.size) == (hashlib.sha256(update).hexdigest(), len(update))
    assert load(update)["weights"].tolist() == [1, 2, 3, 4]
    assert first.metrics["train-loss"] == second.metrics["train-loss"], "the seed is the order's"


def test_app_remembers_what_counted_and_nothing_else(
    server: worker.AppServer, request_for: Callable[..., Request], folder: Path, tmp_path: Path
) -> None:
    def ask(server: worker.AppServer, state: Path | None, **config: Any) -> Any:
        request = request_for(**config)
        chosen = {"state_path": None if state is None else str(state)}
        return server.answer(request.model_copy(update=chosen))

    first = ask(server, None)
    state = tmp_path / f"{first.state_sha256}.bin"
    WorkFolder(tmp_path / "work" / "one").app_state.rename(state)
    assert ask(server, state).metrics["calls"] == 2
    assert ask(server, state).metrics["calls"] == 2, "the last result was not taken: not counted"
    assert ask(server, state, behave="forget-and-raise").code == "app-failed"
    assert ask(server, state).metrics["calls"] == 2, "nor is what an app did before it failed"
    other = worker.AppServer(Hello(app="tiny", data_path=str(folder), run_id=1, node_id=2))
    assert ask(other, state).metrics["calls"] == 2, "another process remembers it"
    assert ask(other, None).metrics["calls"] == 1


def test_evaluation_leaves_no_file(
    server: worker.AppServer, request_for: Callable[..., Request]
) -> None:
    request = request_for().model_copy(update={"message_type": "evaluate", "has_update": False})
    answer = server.answer(request)
    assert isinstance(answer, Result)
    assert (answer.sha256, answer.metrics) == (None, {"num-examples": 2, "eval-loss": 0.5})


def test_failure_of_an_app_names_modules_and_no_files(
    server: worker.AppServer, request_for: Callable[..., Request]
) -> None:
    answer = server.answer(request_for(behave="raise"))
    assert isinstance(answer, AppFailed)
    assert answer.code == "app-failed"
    assert "tests.integration.runner.tiny.client_app:" in answer.trace
    assert answer.trace.splitlines()[-1].startswith("ValueError: cannot read")
    assert ".py" not in answer.trace
    assert "flowerbed.runner.worker" not in answer.trace


def replies() -> dict[str, tuple[Reply, str]]:
    array = Array(np.zeros(1, dtype=np.float32))
    one = ArrayRecord({"w": array})

    def content(**records: Any) -> Reply:
        return lambda message, context: Message(RecordDict(records), reply_to=message)

    return {
        "none": (content(), "the reply has 0 array records"),
        "two": (content(a=one, b=one), "the reply has 2 array records"),
        "empty": (content(a=ArrayRecord()), "expected one with arrays"),
        "error": (
            lambda message, context: Message(Error(code=7), reply_to=message),
            "the app answered with error 7",
        ),
    }


@pytest.mark.parametrize("kind", ["none", "two", "empty", "error"])
def test_reply_that_no_strategy_could_use_is_refused(
    kind: str,
    server: worker.AppServer,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, words = replies()[kind]
    monkeypatch.setattr(server, "_app", app)
    answer = server.answer(request_for())
    assert isinstance(answer, AppFailed)
    assert answer.code == "bad-reply"
    assert words in answer.trace


def test_metrics_that_are_lists_are_left_out(
    server: worker.AppServer,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def app(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "per-class": [0.1, 0.2]})
        return Message(RecordDict({"m": metrics}), reply_to=message)

    monkeypatch.setattr(server, "_app", app)
    answer = server.answer(request_for().model_copy(update={"has_update": False}))
    assert isinstance(answer, Result)
    assert (answer.metrics, answer.left_out) == ({"num-examples": 1}, ("per-class",))


ARRAYS: dict[str, Any] = {
    "a number": np.array(3.5, np.float64),
    "empty": np.empty((0, 4), np.float32),
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "in columns": np.asfortranarray(np.arange(12, dtype=np.float16).reshape(3, 4)),
    "every other": np.arange(12, dtype=np.int64)[::2],
    "truths": np.array([True, False]),
    "big-endian": np.arange(3, dtype=">i4"),
}


def test_arrays_of_every_shape_reach_the_app_and_come_back(
    server: worker.AppServer,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def app(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        for array in arrays.values():
            assert array == Array(array.numpy()), "as Flower itself makes it"
        replied = ArrayRecord({name: Array(array) for name, array in ARRAYS.items()})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"a": replied, "m": metrics}), reply_to=message)

    monkeypatch.setattr(server, "_app", app)
    request = request_for()
    for _ in range(2):
        answer = server.answer(request)
        assert isinstance(answer, Result), answer
        update = load(WorkFolder(Path(request.folder)).update.read_bytes())
        assert update.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(update[name], array, strict=name != "big-endian")
        # What was given back is a base of another round.
        (tmp_path / "again").write_bytes(WorkFolder(Path(request.folder)).update.read_bytes())
        request = request.model_copy(update={"base_path": str(tmp_path / "again")})


def test_update_that_the_app_keeps_as_well_is_remembered_whole(
    server: worker.AppServer,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def app(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        context.state.array_records["last"] = arrays
        return Message(
            RecordDict({"a": arrays, "m": MetricRecord({"num-examples": 1})}), reply_to=message
        )

    monkeypatch.setattr(server, "_app", app)
    request = request_for()
    assert isinstance(server.answer(request), Result)
    state = app_state.load(WorkFolder(Path(request.folder)).app_state)
    assert state.array_records["last"]["weights"].numpy().size == 4


def test_worker_holds_little_more_than_the_app_itself(tmp_path: Path) -> None:
    size = 4 * 1_000_000
    write_initial_checkpoint(
        "synthetic", 1, {"elements": 1_000_000, "tensors": 8}, tmp_path / "base"
    )
    server = worker.AppServer(Hello(app="synthetic", data_path=str(tmp_path), run_id=1, node_id=2))
    folder = WorkFolder(tmp_path / "work" / "one")
    folder.make()
    request = Request(
        message_type="train", base_path=str(tmp_path / "base"), folder=str(folder.path),
        has_update=True, seed=1, config={"seed": 1, "server-round": 1},
    )  # fmt: skip
    tracemalloc.start()
    try:
        assert isinstance(server.answer(request), Result)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()


def test_trace_tells_what_led_to_what() -> None:
    try:
        try:
            raise KeyError("label")
        except KeyError as error:
            raise ValueError("no label") from error
    except ValueError as error:
        trace = worker.trace_of(error)
    assert trace.index("KeyError: 'label'") < trace.index("which led to") < trace.index("no label")


def test_an_update_in_a_form_is_written_as_the_form_reads_it(
    server: worker.AppServer, request_for: Callable[..., Request], tmp_path: Path
) -> None:
    """Of `delta` the very bytes of a full one; of `top_k` the largest, and the rest stays here."""
    base = tmp_path / "base"
    folder = WorkFolder(tmp_path / "work" / "one")
    sha256 = hashlib.sha256(base.read_bytes()).hexdigest()

    def ask(form: Form, left: Path | None = None) -> Result:
        terms = UpdateTerms(form=form.name, block=form.block, fraction=form.fraction)
        more = {"form": terms, "base_sha256": sha256, "left_path": left and str(left)}
        result = server.answer(request_for().model_copy(update=more))
        assert isinstance(result, Result)
        assert folder.finished() == result
        return result

    full = server.answer(request_for())
    assert isinstance(full, Result)
    exact = ask(Form("delta"))
    assert (exact.form_error, exact.left_sha256) == (0, None)
    decode_file(Form("delta"), folder.update, base, sha256, tmp_path / "read")
    assert hashlib.sha256((tmp_path / "read").read_bytes()).hexdigest() == full.sha256

    sparse = Form("top_k", fraction=0.25)
    first = ask(sparse)
    assert first.left_sha256 is not None and 0 < (first.form_error or 0) < 1
    kept = load(folder.left.read_bytes())["weights"]
    assert np.count_nonzero(kept) == 3, "one of four travelled"
    left = tmp_path / f"{first.left_sha256}.bin"
    folder.left.rename(left)
    again = ask(sparse, left)
    assert again.left_sha256 != first.left_sha256
    assert ask(sparse, left).sha256 == again.sha256, "the same work, the same bytes"


def test_only_the_trainable_of_a_base_and_its_adapter_are_sent(
    server: worker.AppServer, request_for: Callable[..., Request], tmp_path: Path
) -> None:
    """The app is given both, and what it answers beside the trainable stays here."""
    frozen, adapter = tmp_path / "frozen", tmp_path / "adapter"
    save_file({"weights": np.zeros(4, "f4"), "rest": np.full(2, 9, "f4")}, frozen)
    save_file({"weights": np.arange(4, dtype="f4")}, adapter)
    sha256, folder = "a" * 64, WorkFolder(tmp_path / "work" / "one")

    def ask(form: str, *trainable: str) -> Result | AppFailed:
        more = {
            "form": UpdateTerms(form=form, trainable=trainable), "base_sha256": sha256,
            "base_path": str(adapter), "frozen_path": str(frozen),
        }  # fmt: skip
        return server.answer(request_for().model_copy(update=more))

    whole = ask("full", "weights")
    assert isinstance(whole, Result) and whole.form_error == 0
    assert {name: one.tolist() for name, one in load(folder.update.read_bytes()).items()} == {
        "weights": [1, 2, 3, 4]
    }
    assert isinstance(ask("delta", "wei*"), Result)
    decode_file(Form("delta"), folder.update, adapter, sha256, tmp_path / "read")
    assert load((tmp_path / "read").read_bytes())["weights"].tolist() == [1, 2, 3, 4]
    none = ask("full", "lora_*", "head")
    assert isinstance(none, AppFailed) and none.code == "bad-reply"
    assert none.trace == "the reply has no array called lora_* or head"
