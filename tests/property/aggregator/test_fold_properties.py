"""What always holds of the fold, whatever the order of arrival and wherever it crashes."""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.decider import AcceptUpdate, ExchangeEvent, RejectUpdate, exchange
from flowerbed.aggregator.fold import Fold
from flowerbed.aggregator.quorum import (
    Answers,
    Ripe,
    Terms,
    due_for_fold,
    in_fold_order,
    judge,
)
from flowerbed.aggregator.screening import Limits, Refused, screen_file
from flowerbed.aggregator.tensors import TensorFile
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.round import OwedWork
from flowerbed.contracts.update import UpdateAccepted
from flowerbed.contracts.values import ArtifactRef
from tests.support.models import model, stored

N_COHORT, N = 4, 6
"""Four clients of the round and two late updates, of other bases."""
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WEIGHTS = (303, 1, 261, 1_000_000, 46, 130)


def ref(name: str) -> ArtifactRef:
    return ArtifactRef(uri=f"s3://b/{name}", sha256=name.encode().hex().ljust(64, "0"), size=1)


def owed(client_id: str, number: int) -> OwedWork:
    return OwedWork(
        client_id=client_id,
        work_id=work_id("fed-1", number, 1, "train", client_id),
        round_number=number,
        attempt=1,
        base=ref(f"base-{number}"),
    )


COHORT = Terms(
    federation_id="fed-1",
    round_number=5,
    attempt=1,
    exchange="train",
    cohort=tuple(f"client-{place}" for place in range(N_COHORT)),
    owed=(owed("client-4", 2), owed("client-5", 4)),
    goal=N,
    n_required=1,
    deadline_at=NOON,
    counts_late=True,
)
ARRIVAL = replace(COHORT, folds_in_order="arrival")


@pytest.fixture(scope="module")
def updates() -> Iterator[Path]:
    """One update a client, and the bases, in a directory."""
    with tempfile.TemporaryDirectory() as directory:
        for place in range(N):
            stored(Path(directory, f"client-{place}"), model(place, size=300))
        for number in (2, 4, 5):
            stored(Path(directory, f"base-{number}"), model(10 + number, size=300))
        yield Path(directory)


def answer(place: int, is_good: bool, terms: Terms = COHORT) -> AcceptUpdate | RejectUpdate:
    client_id, work = f"client-{place}", terms.wanted[place]
    if not is_good:
        return RejectUpdate(terms=terms, client_id=client_id, work_id=work, code="no", detail="")
    return AcceptUpdate(
        terms=terms,
        client_id=client_id,
        work_id=work,
        artifact=ref(client_id),
        n_examples=WEIGHTS[place],
        metrics={},
        train_seconds=0.0,
        norm=None,
    )


def accepted(place: int) -> UpdateAccepted:
    (event,) = exchange.decide(exchange.initial, answer(place, True))
    assert isinstance(event, UpdateAccepted)
    return event


class Bridge:
    """The bridge without its servers: a log of events, and an accumulator that may be lost."""

    def __init__(self, updates: Path, terms: Terms = COHORT) -> None:
        self._updates = updates
        self._terms = terms
        self._log: list[ExchangeEvent] = []
        self.crash()

    def crash(self) -> None:
        self._fold = Fold(self._updates / "base-5", self, self._terms.staleness_exponent)

    def answer(self, command: AcceptUpdate | RejectUpdate) -> None:
        self._log += exchange.decide(exchange.replay(self._log), command)
        self._fold.extend(due_for_fold(self._answers, self._terms))

    def finish(self) -> str:
        verdict = judge(self._answers, self._terms, NOON)
        assert isinstance(verdict, Ripe)
        self._fold.extend(in_fold_order(self._answers, self._terms))
        assert self._fold.places == verdict.places
        with (
            tempfile.NamedTemporaryFile() as out,
            TensorFile(self._updates / "base-5") as base,
        ):
            mean = self._fold.accumulator.mean()
            return write_checkpoint(Path(out.name), base.tensors, mean)[0]

    @property
    def _answers(self) -> Answers:
        return exchange.replay(self._log).answers

    # --- the fold's source ----------------------------------------------------------------------

    def fetch(self, update: UpdateAccepted) -> Path:
        return self._updates / update.client_id

    def fetch_base(self, base: ArtifactRef) -> Path:
        return self._updates / base.uri.rsplit("/", 1)[1]

    def drop(self, update: UpdateAccepted) -> None:
        assert (self._updates / update.client_id).exists()


def direct(updates: Path, good: list[int], terms: Terms = COHORT) -> str:
    """The fold of the same updates in one go, in the order given."""
    bridge = Bridge(updates, terms)
    for place in good:
        bridge.answer(answer(place, True, terms))
    return bridge.finish()


Arrivals = st.permutations(range(N))
Goodness = st.lists(st.booleans(), min_size=N, max_size=N).filter(any)
Crashes = st.sets(st.integers(0, N))


@settings(max_examples=60, deadline=None)
@given(arrivals=Arrivals, good=Goodness, crashes=Crashes, silent=st.sets(st.integers(0, N - 1)))
def test_bytes_depend_on_what_was_accepted_not_on_arrival_or_crashes(
    updates: Path, arrivals: list[int], good: list[bool], crashes: set[int], silent: set[int]
) -> None:
    heard = [place for place in arrivals if place not in silent]
    wanted = sorted(place for place in heard if good[place])
    if not wanted:
        return
    bridge = Bridge(updates)
    for step, place in enumerate(heard):
        if step in crashes:
            bridge.crash()
        bridge.answer(answer(place, good[place]))
        bridge.answer(answer(place, not good[place]))  # saying it again changes nothing
    if N in crashes:
        bridge.crash()
    assert bridge.finish() == direct(updates, wanted)


@settings(max_examples=40, deadline=None)
@given(arrivals=Arrivals, crashes=Crashes, count=st.integers(1, N))
def test_a_buffered_rounds_bytes_follow_from_the_log_alone(
    updates: Path, arrivals: list[int], crashes: set[int], count: int
) -> None:
    bridge = Bridge(updates, ARRIVAL)
    for step, place in enumerate(arrivals[:count]):
        if step in crashes:
            bridge.crash()
        bridge.answer(answer(place, True, ARRIVAL))
    once = bridge.finish()
    bridge.crash()  # folded again from the log, as `verify` does
    assert bridge.finish() == once == direct(updates, arrivals[:count], ARRIVAL)


def test_another_order_may_give_other_bytes(updates: Path) -> None:
    """So a recorded order is needed: addition of floats is not associative."""
    orders = ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])
    assert len({direct(updates, order, ARRIVAL) for order in orders}) > 1
    assert len({direct(updates, order, COHORT) for order in orders}) == 1


def test_the_bytes_depend_on_staleness_and_its_exponent(updates: Path) -> None:
    staler = owed("client-4", 2).model_copy(update={"round_number": 1})
    stale = replace(COHORT, owed=(staler, owed("client-5", 4)))
    flat = replace(COHORT, staleness_exponent=0.0)
    assert len({direct(updates, list(range(N)), terms) for terms in (COHORT, stale, flat)}) == 3


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_harmless(updates: Path, data: st.DataObject) -> None:
    """Any bytes at all: either a refusal with a code, or finite values of the right shapes."""
    content = bytearray((updates / "client-1").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        try:
            distance = screen_file(Path(file.name), updates / "client-0", Limits())
        except Refused as refused:
            assert refused.code
        else:
            assert np.isfinite(distance)


_MEASURE = """
import resource, sys
from pathlib import Path
from flowerbed.aggregator.checkpoints import write_checkpoint
from flowerbed.aggregator.fold import Accumulator, InTime, Late
from flowerbed.aggregator.screening import Limits, screen_file
from flowerbed.aggregator.tensors import TensorFile

folder, count = Path(sys.argv[1]), int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with TensorFile(folder / "0") as base:
    accumulator = Accumulator(base.tensors)
    for place in range(count):
        screen_file(folder / str(place % 4), folder / "0", Limits())
        with TensorFile(folder / str(place % 4)) as update:
            accumulator.add(InTime(update, 10 + place))
        with TensorFile(folder / str(place % 4)) as update, TensorFile(folder / "1") as then:
            accumulator.add(Late(update, then, base, 10 + place, 0.5))
    write_checkpoint(folder / "out", base.tensors, accumulator.mean())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
assert "torch" not in sys.modules and "flwr" not in sys.modules
"""


def test_peak_memory_is_one_model_whatever_the_number_of_updates(tmp_path: Path) -> None:
    mebibytes = 16
    weights = np.random.default_rng(0).standard_normal(mebibytes << 18).astype(np.float32)
    for place in range(4):
        save_file({"w": weights + np.float32(place)}, tmp_path / str(place))

    def peak(count: int) -> float:
        command = [sys.executable, "-c", _MEASURE, str(tmp_path), str(count)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(4), peak(16)
    assert many < few + 4
    assert many < 1.5 * mebibytes + 8


def test_the_digest_is_that_of_the_bytes(updates: Path, tmp_path: Path) -> None:
    with TensorFile(updates / "client-0") as base:
        out = tmp_path / "copy"
        tensors = {name: base.read(name) for name in base.tensors}
        sha256, _ = write_checkpoint(out, base.tensors, tensors)
    assert sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
