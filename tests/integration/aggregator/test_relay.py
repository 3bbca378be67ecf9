"""A relay carries orders through a Grid and brings back what a site would have reported."""

import asyncio
import copy
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import NOOP_FLWR_AID, ErrorCode
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState, RunRecord
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid
from safetensors.numpy import load, save_file

from flowerbed.aggregator import relay as relaying
from flowerbed.aggregator.relay import Relay
from flowerbed.aggregator.relay_works import FederationOver
from flowerbed.artifact.blobs import Blobs, hash_file, split_uri
from flowerbed.contracts.door import WorkFailure, WorkReport
from flowerbed.contracts.ids import flower_number
from flowerbed.contracts.relay import RelayAnswer, RelayOrder, RelayRefusal, RelayWork
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import Unavailable
from flowerbed.flower_apps.seeded import Seeded
from tests.support.s3 import S3Server, blobs, s3
from tests.support.servers import eventually

__all__ = ["blobs", "s3"]

App = Callable[[Message, Context], Message]

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Moves the model by what chance says: only a seed from outside makes it the same twice."""
    arrays = message.content.array_records["arrays"]
    step = np.random.standard_normal(4).astype(np.float32)
    record = type(arrays)([array.numpy() + step for array in arrays.values()])
    metrics = MetricRecord(
        {"num-examples": 5, "round": message_round(message), "nan": float("nan")}
    )
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 2, "accuracy": 0.5})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def message_round(message: Message) -> int:
    return int(str(message.content.config_records["config"]["server-round"]))


@dataclass
class FakeGrid:
    """A Grid in this process: `app` answers at the next look, unless the message is to be lost."""

    app: App = field(default_factory=lambda: Seeded(app))
    lost: int = 0
    pushed: list[Message] = field(default_factory=list)
    waiting: dict[str, Message] = field(default_factory=dict)
    ids: Any = field(default_factory=lambda: map(str, itertools.count(1)))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(next(self.ids))
            message.metadata.__dict__["_message_id"] = ids[-1]
            self.pushed.append(message)
            if len(self.pushed) > self.lost:
                self.waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [self.waiting.pop(one) for one in list(message_ids) if one in self.waiting]
        return [self._reply(copy.deepcopy(message)) for message in found]

    def _reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
        return self.app(message, context)


@dataclass
class FakeWorks:
    """The lease service's side: hands out what is open until it is answered, then is over."""

    orders: dict[str, RelayOrder]
    answers: dict[str, list[RelayAnswer]] = field(default_factory=dict)
    troubles: int = 0
    closed: tuple[str, ...] = ()

    async def next(self, known: Collection[str], wait_seconds: float) -> RelayWork:
        self._trouble()
        while True:
            left = self.orders.keys() - self.answers.keys() - set(self.closed)
            if not left:
                raise FederationOver
            new = [self.orders[work_id] for work_id in sorted(left - set(known))]
            closed = tuple(work_id for work_id in known if work_id in self.closed)
            if new or closed:
                return RelayWork(orders=tuple(new), closed=closed)
            await asyncio.sleep(0.02)

    async def answer(self, answers: Sequence[RelayAnswer]) -> Sequence[RelayRefusal]:
        self._trouble()
        for one in answers:
            self.answers.setdefault(one.work_id, []).append(one)
        return []

    def _trouble(self) -> None:
        if self.troubles:
            self.troubles -= 1
            raise Unavailable("away")

    @property
    def only(self) -> RelayAnswer:
        ((one,),) = self.answers.values()
        return one


@pytest.fixture
def base(blobs: Blobs, s3: S3Server, tmp_path: Path) -> ArtifactRef:
    path = tmp_path / "base"
    save_file({str(n): np.full(4, n, np.float32) for n in range(12)}, path)
    sha256 = hash_file(path)
    return blobs.put_if_absent(s3.bucket, f"checkpoints/{sha256}.safetensors", path, sha256)


@dataclass
class Ground:
    blobs: Blobs
    bucket: str
    base: ArtifactRef
    folder: Path

    def order(
        self, client: str = "client-0", exchange: str = "train", **changes: Any
    ) -> RelayOrder:
        key = f"checkpoints/updates/{uuid.uuid4().hex}/{client}.safetensors"
        return RelayOrder.model_validate(
            {
                "work_id": f"fed-1.1.1.{exchange}.{client}",
                "client_id": client,
                "lease_id": f"lease-{client}",
                "lease_epoch": 1,
                "round_number": 3,
                "attempt": 1,
                "exchange": exchange,
                "message_type": exchange,
                "seed": 7,
                "config": {"local-epochs": 1},
                "base": self.base,
                "upload": f"s3://{self.bucket}/{key}" if exchange == "train" else None,
                "until": datetime.now(UTC) + timedelta(minutes=5),
                **changes,
            }
        )

    async def relayed(self, grid: Any, *orders: RelayOrder, **options: Any) -> FakeWorks:
        works = options.pop("works", None) or FakeWorks({one.work_id: one for one in orders})
        nodes = options.pop("nodes", None) or {
            one.client_id: flower_number(one.client_id) for one in orders
        }
        relay = Relay(grid, works, nodes, self.blobs, self.folder, pace=0.01, **options)
        await asyncio.wait_for(relay.run(), 30)
        return works

    def update(self, answer: RelayAnswer) -> dict[str, Any]:
        report = answer.answer
        assert isinstance(report, WorkReport) and report.artifact is not None
        path = self.folder / "got"
        self.blobs.download(report.artifact.uri, path, sha256=report.artifact.sha256)
        return load(path.read_bytes())


@pytest.fixture
def ground(blobs: Blobs, s3: S3Server, base: ArtifactRef, tmp_path: Path) -> Ground:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    folder = tmp_path / "relay"
    folder.mkdir()
    return Ground(blobs, s3.bucket, base, folder)


async def test_a_reply_becomes_an_update_in_the_store_and_a_report(ground: Ground) -> None:
    order = ground.order()
    works = await ground.relayed(FakeGrid(), order)
    report = works.only.answer
    assert isinstance(report, WorkReport)
    assert (report.epoch, report.n_examples, report.metrics) == (1, 5, {"round": 3.0})
    assert report.train_seconds > 0
    assert report.artifact is not None and report.artifact.uri == order.upload
    update = ground.update(works.only)
    assert list(map(int, sorted(update, key=int))) == list(range(12))
    assert np.allclose(update["10"] - update["2"], 8), "the arrays keep their order: 2 before 10"
    assert list(ground.folder.iterdir()) == [ground.folder / "got"], "nothing is left behind"


async def test_the_seed_decides_whatever_the_process_did_before(ground: Ground) -> None:
    digests = []
    for seed in (7, 7, 8):
        np.random.standard_normal(int(seed))
        works = await ground.relayed(FakeGrid(), ground.order(seed=seed))
        report = works.only.answer
        assert isinstance(report, WorkReport) and report.artifact is not None
        digests.append(report.artifact.sha256)
    assert digests[0] == digests[1] != digests[2]


async def test_an_evaluation_has_metrics_alone(ground: Ground) -> None:
    works = await ground.relayed(FakeGrid(), ground.order(exchange="evaluate"))
    report = works.only.answer
    assert isinstance(report, WorkReport)
    assert (report.artifact, report.n_examples, report.metrics) == (None, 2, {"accuracy": 0.5})


async def test_an_app_that_fails_is_reported_and_the_others_go_on(ground: Ground) -> None:
    def one_fails(message: Message, context: Context) -> Message:
        if context.node_id == flower_number("client-1"):
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "ValueError: no rows")
            return Message(error, reply_to=message)
        return Seeded(app)(message, context)

    orders = [ground.order(f"client-{n}") for n in range(3)]
    works = await ground.relayed(FakeGrid(one_fails), *orders)
    answers = {one.client_id: one.answer for (one,) in works.answers.values()}
    failed = answers.pop("client-1")
    assert failed == WorkFailure(epoch=1, code="app-failed", detail="ValueError: no rows")
    assert all(isinstance(answer, WorkReport) for answer in answers.values())


@pytest.mark.parametrize("metrics", [{}, {"num-examples": 1.5}, {"num-examples": float("nan")}])
async def test_a_reply_without_a_count_of_examples_is_a_bad_reply(
    ground: Ground, metrics: dict[str, float]
) -> None:
    def uncounted(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord(dict(metrics))}), reply_to=message)

    works = await ground.relayed(FakeGrid(uncounted), ground.order())
    assert isinstance(works.only.answer, WorkFailure)
    assert works.only.answer.code == "bad-reply"


async def test_a_message_that_nobody_answered_is_sent_again_and_counts_once(
    ground: Ground,
) -> None:
    grid = FakeGrid(lost=2)
    works = await ground.relayed(grid, ground.order(), patience=0.1)
    assert len(grid.pushed) == 3
    assert isinstance(works.only.answer, WorkReport)


async def test_two_replies_to_one_order_are_answered_once(ground: Ground) -> None:
    class Late(FakeGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return super().pull_messages(message_ids) if len(self.pushed) > 1 else []

    grid = Late()
    works = await ground.relayed(grid, ground.order(), patience=0.1)
    assert len(grid.pushed) == 2
    assert isinstance(works.only.answer, WorkReport)


async def test_a_message_that_a_grid_does_not_take_is_offered_again_in_a_while(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerbed.aggregator.relay.SENT_AGAIN_SECONDS", 0.1)

    class Full(FakeGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            self.offers += 1
            return super().push_messages(messages) if self.offers > 2 else []

        offers = 0

    grid = Full()
    works = await ground.relayed(grid, ground.order())
    assert grid.offers == 3
    assert isinstance(works.only.answer, WorkReport)


async def test_what_flower_calls_lost_is_sent_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerbed.aggregator.relay.SENT_AGAIN_SECONDS", 0.05)
    count = itertools.count()

    def lost_at_first(message: Message, context: Context) -> Message:
        if next(count) == 0:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
        return Seeded(app)(message, context)

    works = await ground.relayed(FakeGrid(lost_at_first), ground.order())
    assert isinstance(works.only.answer, WorkReport)


async def test_a_client_that_cannot_be_reached_yet_gets_its_order_later(ground: Ground) -> None:
    order, grid, nodes = ground.order(), FakeGrid(), {"client-else": 1}
    running = asyncio.create_task(ground.relayed(grid, order, nodes=nodes))
    await asyncio.sleep(0.1)
    assert grid.pushed == []
    nodes[order.client_id] = 5
    await running
    assert [one.metadata.dst_node_id for one in grid.pushed] == [5]


async def test_a_closed_order_is_forgotten(ground: Ground) -> None:
    orders = [ground.order("client-0"), ground.order("client-1")]
    works = FakeWorks({one.work_id: one for one in orders})
    grid = FakeGrid(lost=2)
    nodes = {one.client_id: 1 for one in orders}
    running = asyncio.create_task(
        ground.relayed(grid, *orders, works=works, nodes=nodes, patience=0.3)
    )

    async def both_are_sent() -> bool:
        return len(grid.pushed) == 2

    await eventually(both_are_sent, "both orders are sent")
    works.closed = (orders[0].work_id,)
    await running
    assert list(works.answers) == [orders[1].work_id]


async def test_a_lease_service_that_is_away_is_asked_again(ground: Ground) -> None:
    order = ground.order()
    works = FakeWorks({order.work_id: order}, troubles=3)
    await ground.relayed(FakeGrid(), order, works=works)
    assert isinstance(works.only.answer, WorkReport)


async def test_a_relay_that_died_before_its_report_reports_what_it_had_stored(
    ground: Ground,
) -> None:
    order = ground.order()
    assert order.upload is not None
    bucket, key = split_uri(order.upload)
    earlier = ground.folder.parent / "earlier"
    save_file({"x": np.zeros(3, np.float32)}, earlier)
    stored = ground.blobs.put_if_absent(bucket, key, earlier, hash_file(earlier))
    works = await ground.relayed(FakeGrid(), order)
    assert isinstance(works.only.answer, WorkReport)
    assert works.only.answer.artifact == stored


async def test_an_error_of_the_grid_ends_the_relay(ground: Ground) -> None:
    class Broken(FakeGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            raise ConnectionError("the SuperLink is gone")

    with pytest.raises(ExceptionGroup) as raised:
        await ground.relayed(Broken(), ground.order())
    assert raised.group_contains(ConnectionError)


async def test_flowers_own_grid_carries_it_too(ground: Ground) -> None:
    """Its link state in memory, and nodes that pull from it, as its simulation does."""
    run = Run.create_empty(flower_number("fed-1"))
    run.primary_task_id, run.federation_id = 1, NOOP_FEDERATION_ID
    factory = LinkStateFactory(":flwr-in-memory:", NoOpFederationManager(), ObjectStoreFactory())
    state = factory.state()
    assert isinstance(state, InMemoryLinkState)
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[1] = Task(task_id=1, run_id=run.run_id)
    TaskIdentity.run_id = run.run_id
    grid = InMemoryGrid(factory)
    grid.set_run(run)
    orders = [ground.order(f"client-{n}") for n in range(3)]
    nodes = {
        one.client_id: state.create_node(NOOP_FLWR_AID, "", one.client_id.encode() * 4, 1e6)
        for one in orders
    }
    for node in nodes.values():
        state.acknowledge_node_heartbeat(node, 1e6)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.wait(0.01):
            for node in nodes.values():
                for message in state.get_message_ins(node_id=node, limit=1):
                    reply = FakeGrid()._reply(message)
                    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
                    state.store_message_res(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        works = await ground.relayed(grid, *orders, nodes=nodes)
    finally:
        is_over.set()
        thread.join()
    found = [one.answer for (one,) in works.answers.values()]
    assert len(found) == 3
    assert all(isinstance(one, WorkReport) for one in found)


async def test_what_an_idle_node_has_not_answered_is_lost_and_sent_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the others train: no time-out guesses."""
    monkeypatch.setattr(relaying, "SURE_SECONDS", 0.0)
    idle: dict[str, float] = {}
    grid = FakeGrid(lost=2)

    async def node_1_is_idle() -> None:
        async def was_sent() -> bool:
            return len(grid.pushed) == 2

        await eventually(was_sent, "both are sent")
        await asyncio.sleep(0.1)
        idle["client-1"] = time.monotonic()
        await eventually(is_again, "it is sent again")
        idle["client-0"] = time.monotonic()

    async def is_again() -> bool:
        return len(grid.pushed) == 3

    telling = asyncio.create_task(node_1_is_idle())
    orders = [ground.order(f"client-{n}") for n in range(2)]
    works = await ground.relayed(grid, *orders, idle_since=idle.get)
    await telling
    again = [message.metadata.dst_node_id for message in grid.pushed[2:]]
    assert again == [flower_number("client-1"), flower_number("client-0")]
    assert len(works.answers) == 2


async def test_a_node_that_was_idle_before_it_was_asked_is_left_alone(ground: Ground) -> None:
    grid, since = FakeGrid(lost=1), time.monotonic()
    with pytest.raises(TimeoutError):
        order = ground.order()
        await asyncio.wait_for(ground.relayed(grid, order, idle_since=lambda _: since), 1)
    assert len(grid.pushed) == 1
