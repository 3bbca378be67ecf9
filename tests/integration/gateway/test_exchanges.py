"""The read model of a whole ServerApp whose exchanges overlap, whoever is heard first."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowerbed.contracts.federation import (
    FederationCompleted,
    FederationCreated,
    FederationEvent,
    FederationStarted,
)
from flowerbed.contracts.problems import parse_spec
from flowerbed.contracts.round import CohortMember
from flowerbed.contracts.server_app import (
    MessageAnswered,
    MessagesPulled,
    MessagesPushed,
    PulledReply,
    PushedMessage,
    ServerAppCompleted,
    ServerAppStarted,
)
from flowerbed.events.store import EventStore
from flowerbed.gateway import MIGRATIONS
from flowerbed.gateway.consumers import codec
from flowerbed.gateway.projections import PROJECTIONS
from flowerbed.gateway.rows import federation_row, rounds_of
from flowerbed.gateway.why.facts import Serving, Starting
from flowerbed.gateway.why.folding import Told, standing
from tests.integration.gateway.story import FED, NOON, TENANT, Story, document, owner, ref
from tests.support.servers import MakeDatabase, ServiceDatabase

STORE = EventStore(codec, PROJECTIONS)
JOURNAL = f"serverapp-{FED}"


def _pushed(number: int, *clients: str) -> MessagesPushed:
    cohort = tuple(
        PushedMessage(
            client_id=client, lease_id=f"lease-{client}", lease_epoch=1, seed=7,
            place="ab".index(client), node_id=7, message_id=f"{number}{client}",
            message_type="train", ttl=60.0, content=ref("content"),
        )
        for client in clients
    )  # fmt: skip
    return MessagesPushed(
        federation_id=FED, round_number=number, cohort=cohort, n_nodes=2, at=1.0,
        deadline_at=NOON + timedelta(hours=number),
    )  # fmt: skip


def _pulled(*replies: str, closed: tuple[int, ...] | None) -> MessagesPulled:
    newest = max(int(one[0]) for one in replies)
    given = tuple(
        PulledReply(
            message_id=one, node_id=7, round_number=int(one[0]),
            **({"error": 2} if "!" in one else {"content": ref(one)}),
        )
        for one in replies
    )  # fmt: skip
    return MessagesPulled(
        federation_id=FED, round_number=newest, replies=given, at=2.0, closed=closed
    )


def _answered(number: int, client: str) -> MessageAnswered:
    return MessageAnswered(
        federation_id=FED, round_number=number, client_id=client, lease_epoch=1,
        work_id=f"{FED}.{number}.1.message.{client}", content=ref(f"{number}{client}"),
    )  # fmt: skip


def _under_way() -> Story:
    """Node a is sent more before b has answered; what both gave then is pulled at once."""
    story = Story()
    spec = document(
        app=f"fab:{'c' * 64}", server_app="whole", model_ref=None, num_rounds=1, min_clients=2
    )
    own: list[FederationEvent] = [
        FederationCreated(
            federation_id=FED, submission_id="s1", spec=parse_spec(spec).document(),
            code_hash="c" * 64, join_deadline_at=NOON,
        ),
        FederationStarted(federation_id=FED, base=ref("base"), n_clients=2),
        ServerAppStarted(
            federation_id=FED, seed=1, deadline_at=NOON,
            nodes=tuple(
                CohortMember(client_id=name, lease_id=f"lease-{name}", lease_epoch=1, seed=1)
                for name in "ab"
            ),
        ),
    ]  # fmt: skip
    for event in own:
        story.tell(f"federation-{FED}", event)
    story.tell(JOURNAL, _pushed(1, "a", "b"))
    story.tell(f"lease-{FED}-a", _answered(1, "a"))
    story.tell(JOURNAL, _pulled("1a", closed=()))
    story.tell(JOURNAL, _pushed(2, "a"))
    for number, client in ((1, "b"), (2, "a")):
        story.tell(f"lease-{FED}-{client}", _answered(number, client))
    story.tell(JOURNAL, _pulled("1b!", "2a", closed=(1, 2)))
    story.tell(JOURNAL, _pushed(3, "b"))
    return story


def _whole() -> Story:
    """What it sent last it never asks for."""
    story = _under_way()
    ended = ServerAppCompleted(
        federation_id=FED, n_exchanges=3, checkpoint=ref("made"), arrays_from="last-sent",
        app="c" * 64, training={"loss": 0.5},
    )  # fmt: skip
    story.tell(JOURNAL, ended)
    story.tell(
        f"federation-{FED}",
        FederationCompleted(federation_id=FED, final=ref("made"), n_rounds=3),
    )
    return story


async def _seen(made: ServiceDatabase, told: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    async with made.database.transaction(TENANT) as tx:
        for one in told:
            assert await STORE.record(tx, one)
    async with made.database.transaction(TENANT) as tx:
        found = await rounds_of(tx, FED)
        return await federation_row(tx, FED), [one.model_dump(mode="json") for one in found]


@pytest.fixture
async def gateway_database(service_database: MakeDatabase) -> ServiceDatabase:
    return await service_database("gateway", [MIGRATIONS])


ORDERS: dict[str, Callable[[Story], list[Any]]] = {
    "as it happened": lambda story: story.told,
    "the aggregator first": lambda story: sorted(story.told, key=owner),
    "the orchestrator first": lambda story: sorted(story.told, key=owner, reverse=True),
    "mixed": lambda story: story.shuffled(3),
}


@pytest.mark.parametrize("heard", ORDERS)
async def test_only_what_nobody_waits_for_any_more_is_done(
    gateway_database: ServiceDatabase, heard: str
) -> None:
    row, exchanges = await _seen(gateway_database, ORDERS[heard](_under_way()))
    assert (row["status"], row["n_rounds_completed"], row["n_rounds"]) == ("running", 2, 3)
    assert row["round_number"] == 3
    assert row["updated_at"] == _under_way().told[-1].recorded_at, "when it last sent something"
    assert [(one["status"], one["training"]) for one in exchanges] == [
        ("completed", {"num-replies": 1, "num-errors": 1}),
        ("completed", {"num-replies": 1, "num-errors": 0}),
        ("training", {}),
    ]


@pytest.mark.parametrize("heard", ORDERS)
async def test_whoever_is_heard_first_all_are_done_in_the_end(
    gateway_database: ServiceDatabase, heard: str
) -> None:
    row, exchanges = await _seen(gateway_database, ORDERS[heard](_whole()))
    assert (row["status"], row["n_rounds_completed"], row["n_rounds"]) == ("completed", 3, 3)
    assert row["updated_at"] == row["ended_at"]
    assert {one["status"] for one in exchanges} == {"completed"}
    assert exchanges[2]["training"] == {"loss": 0.5}
    assert [one["checkpoint_sha256"] for one in exchanges] == [None, None, ref("made").sha256]


def test_an_old_pull_closes_the_exchange_that_it_names() -> None:
    old = json.loads(_pulled("1a", closed=None).model_dump_json())
    assert MessagesPulled(**old).closes == (1,)
    assert MessagesPulled(**old | {"n_open": 1}).closes == ()


def test_each_node_that_has_not_answered_is_waited_for() -> None:
    """Not only those of the newest exchange."""
    told = [one for one in _under_way().told if "created" not in one.type]
    before = told[: next(k for k, one in enumerate(told) if one.type == "fl.message.answered") + 3]
    found = standing(
        Told(
            own=[one for one in before if one.stream.startswith("federation-")],
            leases=[one for one in before if one.stream.startswith("lease-")],
            exchanges=[one for one in before if one.stream == JOURNAL],
        ),
        Starting(since=NOON, until=None),
    ).stage
    assert isinstance(found, Serving)
    assert [(one.client_id, one.round_number, one.reported_at) for one in found.work] == [
        ("b", 1, None),
        ("a", 2, None),
    ]
