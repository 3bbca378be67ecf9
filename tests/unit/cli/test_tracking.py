"""Each round reaches a tracker once, by numbers alone; read back with the trackers' own code."""

import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from flowerbed.cli import main as cli
from flowerbed.cli.api import Api
from flowerbed.cli.tracking import follow
from flowerbed.cli.tracking.cursor import kept
from flowerbed.cli.tracking.follow import Choice, Tracker
from flowerbed.cli.tracking.rounds import MARK, Measured, Run, measured, run_of
from tests.unit.cli.federation_views import AT, FED, a_client, a_federation, a_round
from tests.unit.cli.gateway_stub import StubGateway, run, stub_gateway

CLIENTS = [a_client("client-secret-a"), {**a_client("client-secret-b"), "dataset": None}]
SPEC = {"spec": {"app": "builtin:hospital", "num_rounds": 3, "train": {"learning_rate": 0.1}}}
FEDERATION = a_federation(clients=CLIENTS, spec=SPEC)


def needs(library: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(library) is None,
        reason=f"{package} is not installed (pip install {package})",
    )


needs_tensorboard = needs("tensorboardX", "tensorboardX")
needs_mlflow = needs("mlflow", "mlflow-skinny")
needs_wandb = needs("wandb", "wandb")


def event(number: int, position: int | None = None) -> dict[str, Any]:
    return {
        "position": position or number, "type": "fl.round.completed", "recorded_at": AT,
        "federation_id": FED, "tenant": "acme",
        "data": {
            "round_number": number, "attempt": 1, "n_updates": 2,
            "training": {"train-loss": 1 / number}, "evaluation": {"accuracy": number / 10},
        },
    }  # fmt: skip


def ended(position: int) -> dict[str, Any]:
    return {
        "position": position, "type": "fl.federation.completed", "recorded_at": AT,
        "federation_id": FED, "tenant": "acme", "data": {"n_rounds": 3},
    }  # fmt: skip


def detail(number: int) -> dict[str, Any]:
    answers = [
        {
            "attempt": 1, "exchange": exchange, "status": "accepted", "client_id": client,
            "place": place, "n_examples": 10 + place, "train_seconds": 1.5,
            "metrics": {"loss": 0.5},
        }
        for place, client in enumerate(("client-secret-a", "client-secret-b"))
        for exchange in ("train", "evaluate")
    ]  # fmt: skip
    return {"federation_id": FED, "attempts": [a_round(number)], "updates": answers}


@pytest.fixture
def stub() -> Iterator[StubGateway]:
    with stub_gateway() as gateway:
        gateway.answer(f"GET /federations/{FED}", FEDERATION)
        for number in (1, 2, 3):
            gateway.answer(f"GET /federations/{FED}/rounds/{number}", detail(number))
        yield gateway


def tell(stub: StubGateway, *events: dict[str, Any]) -> None:
    """These, and no more."""
    stub.answers.pop("GET /events", None)
    if events:
        last = events[-1]["position"]
        stub.answer("GET /events", {"events": list(events), "next_after": last})
    stub.answer("GET /events", {"events": [], "next_after": 0})


def track(stub: StubGateway, to: str, tmp_path: Path, *more: str) -> Result:
    cursor = str(tmp_path / "cursor.json")
    return run(cli.app, "track", "--to", to, "--once", "--cursor", cursor, *more, url=stub.url)


# --- what is told -----------------------------------------------------------


def test_a_client_is_told_by_its_datasets_label_or_by_its_place() -> None:
    found = measured(event(1), FEDERATION, detail(1))
    assert found.values["hospital-client-secret-a/train-loss"] == 0.5
    assert found.values["client-2/eval-n_examples"] == 11
    assert found.values["train/train-loss"] == 1.0 and found.values["eval/accuracy"] == 0.1
    assert found.values["round/total_seconds"] == 2.5
    assert list(found.values)[-1] == MARK
    assert "client-secret-b" not in json.dumps([dict(found.values), run_of(FEDERATION).name])


def test_only_what_counted_in_this_attempt_is_told() -> None:
    answers = detail(1)
    answers["updates"][0]["status"] = "rejected"
    answers["updates"].append({**answers["updates"][2], "attempt": 2, "place": 7})
    found = measured(event(1), FEDERATION, answers)
    assert "hospital-client-secret-a/train-loss" not in found.values
    assert not [name for name in found.values if name.startswith("client-8")]


@pytest.mark.parametrize("missing", ["aggregated_at", "evaluate_seconds"])
def test_a_round_waits_for_what_is_not_heard_of_its_updates_yet(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(follow, "PAUSE_SECONDS", 0.01)
    early = {**detail(1), "attempts": [{**a_round(1), missing: None}], "updates": []}
    path = f"GET /federations/{FED}/rounds/1"
    stub.answers.pop(path)
    for answer in (early, early, detail(1)):
        stub.answer(path, answer)
    tell(stub, {**event(1), "recorded_at": datetime.now(UTC).isoformat()})
    found = track(stub, f"tensorboard:{tmp_path / 'runs'}", tmp_path)
    n_values = len(measured(event(1), FEDERATION, detail(1)).values)
    assert f"round 1: {n_values} values" in found.stderr + found.stdout


def test_a_round_of_long_ago_does_not_wait_for_what_never_comes(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that did not keep it has left it out for ever."""

    def never(seconds: float) -> None:
        raise AssertionError(f"it waits {seconds:g} s")

    monkeypatch.setattr("flowerbed.cli.tracking.follow.time.sleep", never)
    old = {**detail(1), "attempts": [a_round(1, aggregated_at=None)]}
    stub.answers.pop(f"GET /federations/{FED}/rounds/1")
    stub.answer(f"GET /federations/{FED}/rounds/1", old)
    tell(stub, event(1))
    found = track(stub, f"tensorboard:{tmp_path / 'runs'}", tmp_path)
    assert found.exit_code == 0, found.output
    assert "round 1:" in found.stderr + found.stdout


# --- once -------------------------------------------------------------------


class Memory:
    """A tracker that fails or forgets when it is told to."""

    def __init__(self, *, can_tell: bool = True) -> None:
        self.held: list[int] = []
        self.can_tell = can_tell
        self.dies_after = 99

    def last_round(self, run: Run) -> int | None:
        return max(self.held, default=0) if self.can_tell else None

    def log(self, run: Run, one: Measured) -> None:
        self.held.append(one.number)
        if len(self.held) == self.dies_after:
            raise KeyboardInterrupt

    def end(self, run: Run, status: str) -> None:
        self.held.append(-1)

    def close(self) -> None: ...


@pytest.mark.parametrize("can_tell", [True, False])
def test_a_tracker_killed_after_telling_does_not_tell_it_again(
    stub: StubGateway, tmp_path: Path, can_tell: bool
) -> None:
    sink = Memory(can_tell=can_tell)
    for dies_after in (2, 99):
        tell(stub, event(1), event(2), event(3), ended(4))
        sink.dies_after = dies_after
        with kept(tmp_path / "cursor.json") as cursor:
            tracker = Tracker(Api(stub.url, "t"), sink, cursor, Choice(), lambda line: None)
            try:
                tracker.catch_up()
            except KeyboardInterrupt:
                assert sink.held == [1, 2]
    assert sink.held == [1, 2, 3, -1]
    with kept(tmp_path / "cursor.json") as cursor:
        assert (cursor.position, cursor.rounds, cursor.begun) == (4, {}, None)


def test_the_feed_is_asked_for_what_is_chosen_behind_the_cursor(
    stub: StubGateway, tmp_path: Path
) -> None:
    for number in (1, 2):
        tell(stub, event(number, position=40 + number))
        with kept(tmp_path / "cursor.json") as cursor:
            choice = Choice(tenant="acme", federation=FED)
            told = Tracker(Api(stub.url, "t"), Memory(), cursor, choice, print).catch_up()
            assert told == 1
    asked = [path for _, path, _ in stub.asked if path.startswith("/events")]
    assert f"after=0&limit={follow.PAGE}&federation={FED}&tenant=acme" in asked[0]
    assert [path.partition("after=")[2].partition("&")[0] for path in asked] == [
        "0", "41", "41", "42",
    ]  # fmt: skip
    assert asked[0].count("type=") == 4


def test_two_trackers_do_not_move_one_cursor(stub: StubGateway, tmp_path: Path) -> None:
    with kept(tmp_path / "cursor.json"):
        found = track(stub, f"tensorboard:{tmp_path / 'runs'}", tmp_path)
    assert found.exit_code == 2 and "another `flowerbed track`" in found.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--to", "excel:book"), "is none of tensorboard:DIRECTORY, mlflow:URI, wandb:PROJECT"),
        (("--to", "tensorboard:"), "is none of"),
        (("--to", "mlflow:x", "--offline"), "--offline is of wandb"),
        (("--to", "mlflow:http://a:secret@host"), "MLFLOW_TRACKING_PASSWORD instead"),
    ],
)
def test_a_tracker_that_cannot_be_is_bad_input(
    stub: StubGateway, tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    cursor = ("--cursor", str(tmp_path / "cursor.json"))
    found = run(cli.app, "track", *arguments, *cursor, url=stub.url)
    assert found.exit_code == 2 and why in found.output, found.output
    assert not (tmp_path / "cursor.json").exists()


def test_a_library_that_is_missing_is_named(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerbed.cli.tracking.sinks.find_spec", lambda name: None)
    found = track(stub, "wandb:hearts", tmp_path)
    assert found.exit_code == 2
    assert "needs the package wandb, which is not installed" in found.output


# --- the trackers themselves --------------------------------------------------


def twice(stub: StubGateway, to: str, tmp_path: Path, *more: str) -> None:
    """Two rounds, then all three by a tracker whose cursor was lost."""
    for events in ((event(1), event(2)), (event(1), event(2), event(3), ended(4))):
        tell(stub, *events)
        found = track(stub, to, tmp_path, *more)
        assert found.exit_code == 0, found.output
        (tmp_path / "cursor.json").unlink()
    assert f"1 new rounds told to {to}" in found.output


@needs_tensorboard
def test_tensorboard_has_each_round_once(stub: StubGateway, tmp_path: Path) -> None:
    from flowerbed.cli.tracking.to_tensorboard import events

    twice(stub, f"tensorboard:{tmp_path / 'runs'}", tmp_path)
    found = [
        (value.tag, one.step, round(value.simple_value, 4))
        for path in (tmp_path / "runs" / f"demo-{FED}").glob("events.*")
        for one in events(path)
        for value in one.summary.value
    ]
    accuracy = sorted(entry for entry in found if entry[0] == "eval/accuracy")
    assert accuracy == [("eval/accuracy", n, n / 10) for n in (1, 2, 3)]
    assert ("client-2/train-loss", 3, 0.5) in found
    files = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("events.*"))
    assert b"client-secret-b" not in files


@needs_tensorboard
def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(
    stub: StubGateway, tmp_path: Path
) -> None:
    from flowerbed.cli.tracking.to_tensorboard import events

    tell(stub, event(1))
    track(stub, f"tensorboard:{tmp_path / 'runs'}", tmp_path)
    (path,) = (tmp_path / "runs").rglob("events.*")
    whole = len(list(events(path)))
    path.write_bytes(path.read_bytes()[:-3])
    assert len(list(events(path))) == whole - 1 > 0


@needs_mlflow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_each_round_once(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    twice(stub, f"mlflow:{uri}", tmp_path)

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("flowerbed/acme")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "eval/accuracy")
    assert sorted((one.step, one.value) for one in history) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert found.data.params["train.learning_rate"] == "0.1"
    assert (found.info.run_name, found.info.status) == ("demo", "FINISHED")
    assert not [name for name in found.data.metrics if "client-secret-b" in name]


def records(data: bytes) -> Iterator[bytes]:
    """Of a run's file: in blocks of 32 KiB, each piece with a check, its length, and its kind."""
    block, header, full, last = 32768, 7, 1, 4
    at, record = header, b""
    while at + header <= len(data):
        if block - at % block < header:
            at += block - at % block  # too small a rest for another piece
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + header : at + header + length]
        at += header + length
        if kind in (full, last):
            yield record
            record = b""


@needs_wandb
def test_wandb_offline_writes_each_round_into_its_run(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    tell(stub, event(1), event(2))
    assert track(stub, "wandb:hearts", tmp_path, "--offline").exit_code == 0
    tell(stub, event(1), event(2), event(3), ended(4))
    assert "1 new rounds" in track(stub, "wandb:hearts", tmp_path, "--offline").output

    told: list[tuple[int, float]] = []
    raw = b""
    for path in sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{FED}.wandb")):
        raw += path.read_bytes()
        for data in records(path.read_bytes()):
            values = {
                item.key or "/".join(item.nested_key): item.value_json
                for item in record.FromString(data).history.item
            }
            if "eval/accuracy" in values:
                told.append((int(values["_step"]), float(values["eval/accuracy"])))
    assert told == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert b"client-secret-b" not in raw


@needs_wandb
def test_wandb_with_a_network_wants_a_key(
    stub: StubGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    found = track(stub, "wandb:hearts", tmp_path)
    assert found.exit_code == 2 and "needs WANDB_API_KEY, or --offline" in found.output
