"""Late updates on real servers: owed from round to round, folded by their staleness, or refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest
from safetensors.numpy import load

from flowerbed.aggregator import MIGRATIONS
from flowerbed.aggregator.consumers import consumers
from flowerbed.aggregator.exchanges import AllExchanges
from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import FederationCancelled, FederationCompleted
from flowerbed.contracts.ids import work_id
from flowerbed.contracts.update import UpdateFailed
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.connection import Connection
from flowerbed.events.context import Context
from flowerbed.events.database import set_tenant
from flowerbed.events.migrate import migrate
from flowerbed.events.recorded import Recorded
from tests.integration.aggregator.conftest import Garden, model
from tests.integration.aggregator.test_trouble import bridge_process, verify
from tests.support.models import Model
from tests.support.servers import MakeDatabase, eventually

LONG = "2030-01-01T00:00:00Z"
"""When the work orders of a round run out whose late updates count."""


def answers(events: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Who was answered, and how."""
    return [(data["client_id"], data.get("code", "accepted")) for _, data in events
            if "place" in data]  # fmt: skip


async def first_round(garden: Garden) -> ArtifactRef:
    """a and b train the base of round 2; c owes its update."""
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"), goal=2, n_required=1, work_until=LONG)
    await garden.submit("a", garden.put_model(1))
    await garden.submit("b", garden.put_model(2))
    ended = await garden.outcome(stream)
    assert ended["owing"] == [work_id(garden.federation_id, 1, 1, "train", "c")]
    return ArtifactRef.model_validate(ended["checkpoint"])


async def second_round(garden: Garden, base: ArtifactRef, **more: Any) -> str:
    assert garden.base is not None
    owed = (garden.owed("c", 1, garden.base),)
    asked = {"base": base, "owed": owed, "goal": 3, "n_required": 1, "work_until": LONG}
    return await garden.start_round(("a", "b"), number=2, **{**asked, **more})


def tensors(garden: Garden, ref: ArtifactRef) -> Model:
    path = garden.folder / "read"
    garden.blobs.download(ref.uri, path, sha256=ref.sha256)
    return {name: array.astype(np.float64) for name, array in load(path.read_bytes()).items()}


@pytest.mark.parametrize("order", ["cohort", "arrival"])
async def test_a_late_update_moves_the_next_checkpoint_by_its_scaled_step(
    garden: Garden, order: str
) -> None:
    base = await first_round(garden)
    late = garden.put_model(3)
    stream = await second_round(garden, base, folds_in_order=order, staleness_exponent=1.0)
    await garden.submit("c", late, n_examples=30)  # an answer to round 1
    await garden.heard(stream, 1)
    await garden.submit("b", garden.put_model(5), number=2)
    await garden.heard(stream, 2)
    await garden.submit("a", garden.put_model(4), number=2)
    ended = await garden.outcome(stream)

    places = [(one["client_id"], one["place"], one["staleness"]) for one in ended["updates"]]
    in_time = [("a", 0, 0), ("b", 1, 0)]
    assert places == (
        [*in_time, ("c", 2, 1)] if order == "cohort" else [("c", 2, 1), *reversed(in_time)]
    )
    assert garden.base is not None
    assert ended["parents"] == [base.sha256, garden.base.sha256]
    assert ended["owing"] == []

    (accepted,) = [data for _, data in await garden.events(stream) if data.get("staleness")]
    then, u = model(0), model(3)
    distance = np.sqrt(sum(((u[name] - then[name]) ** 2).sum() for name in u))
    assert accepted["norm"] == pytest.approx(distance, rel=1e-5)
    assert accepted["base"] == garden.base.model_dump()

    now = tensors(garden, base)
    found = tensors(garden, ArtifactRef.model_validate(ended["checkpoint"]))
    for name, array in found.items():
        moved = now[name] + 0.5 * (u[name] - then[name])
        wanted = (10 * model(4)[name] + 10 * model(5)[name] + 30 * moved) / 50
        np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-6)

    answer = (await verify(garden, 2)).json()
    assert (answer["identical"], answer["n_updates"]) == (True, 3)
    assert answers(await garden.events(garden.stream(1))) == [("a", "accepted"), ("b", "accepted")]


async def test_killed_with_a_late_update_in_the_fold_it_gives_the_same_bytes(
    garden: Garden, tmp_path: Path
) -> None:
    base = await first_round(garden)
    late, a, b = garden.put_model(3), garden.put_model(4), garden.put_model(5)
    await garden.submit("c", late)
    undisturbed = await second_round(garden, base, folds_in_order="arrival")
    for count, (name, update) in enumerate([("a", a), ("b", b)], start=2):
        await garden.submit(name, update, number=2)
        await garden.heard(undisturbed, count)
    wanted = (await garden.outcome(undisturbed))["checkpoint"]
    await garden.stop()
    stream = await second_round(garden, base, folds_in_order="arrival", attempt=2)
    for count, (name, update) in enumerate([("a", a), ("b", b)], start=1):
        with bridge_process(garden, tmp_path) as process:
            await garden.heard(stream, count)  # the late update first: its report was there
            process.kill()
        await garden.submit(name, update, number=2, attempt=2)
    with bridge_process(garden, tmp_path) as process:
        assert (await garden.outcome(stream))["checkpoint"] == wanted
        process.terminate()
        await eventually(lambda: process.poll() == 0, "it ends when it is told to")


async def test_a_late_update_is_screened_and_may_be_refused(garden: Garden) -> None:
    base = await first_round(garden)
    gone = garden.put_model(0)
    bucket, key = gone.uri.removeprefix("s3://").split("/", 1)
    owed = (garden.owed("c", 1, gone),)
    garden.blobs._s3.delete_object(Bucket=bucket, Key=key)
    stream = await second_round(garden, base, owed=owed)
    await garden.submit("c", garden.put_model(3))
    await garden.submit("a", garden.put_model(4), number=2)
    await garden.submit("b", garden.put_model(5), number=2)
    ended = await garden.outcome(stream)
    assert [one["client_id"] for one in ended["updates"]] == ["a", "b"]
    events = await garden.events(stream)
    assert ("c", "object-missing") in answers(events)
    (told,) = [data["detail"] for _, data in events if data.get("code") == "object-missing"]
    assert told.startswith("what it was trained from")


async def test_what_no_round_lists_is_refused_as_late_when_that_is_certain(garden: Garden) -> None:
    base = await first_round(garden)
    await garden.submit("c", garden.put_model(3))
    own = garden.stream(1)
    assert garden.shell is not None
    shell = garden.shell
    await eventually(lambda: shell.handled("lease") == 3, "the late report is heard")
    assert len(await garden.events(own)) == 3, "nobody knows yet whether it will count"
    await second_round(garden, base, owed=())
    events = await garden.heard(own, 4)
    assert answers(events)[-1] == ("c", "late")


async def test_at_the_federations_end_what_still_waited_is_refused_as_late(garden: Garden) -> None:
    base = await first_round(garden)
    stream = await second_round(garden, base, goal=1)
    await garden.submit("a", garden.put_model(4), number=2)
    assert len((await garden.outcome(stream))["owing"]) == 2  # b, and c still
    await garden.stop()  # heard after a restart, and in any order
    await garden.submit("c", garden.put_model(3))
    end = FederationCompleted(federation_id=garden.federation_id, final=base, n_rounds=2)
    await garden.orchestrate(end)
    await garden.submit("b", garden.put_model(5), number=2)
    await garden.start()
    assert answers(await garden.heard(garden.stream(1), 4))[-1] == ("c", "late")
    assert answers(await garden.heard(stream, 3))[-1] == ("b", "late")


async def test_owed_work_that_a_failed_attempt_accepted_counts_in_the_next_one(
    garden: Garden,
) -> None:
    base = await first_round(garden)
    failed = await second_round(garden, base, n_required=3)
    await garden.submit("c", garden.put_model(3))
    await garden.heard(failed, 1)
    await garden.submit("a", None, number=2)
    assert (await garden.outcome(failed))["code"] == "quorum-missed"
    stream = await second_round(garden, base, attempt=2)
    for name in "ab":
        await garden.submit(name, garden.put_model(4), number=2, attempt=2)
    ended = await garden.outcome(stream)
    assert [one["client_id"] for one in ended["updates"]] == ["a", "b", "c"]


async def test_work_of_an_exchange_that_refuses_late_updates_counts_nowhere_else(
    garden: Garden,
) -> None:
    """Whatever the policy says since: the exchange's own terms hold."""
    await garden.create()
    own = await garden.start_round(("a", "c"), goal=1, n_required=1)
    await garden.submit("a", garden.put_model(1))
    base = ArtifactRef.model_validate((await garden.outcome(own))["checkpoint"])
    stream = await second_round(garden, base)
    await garden.submit("c", garden.put_model(3))
    assert answers(await garden.heard(own, 3))[-1] == ("c", "late")
    for name in "ab":
        await garden.submit(name, garden.put_model(4), number=2)
    ended = await garden.outcome(stream)
    assert [one["client_id"] for one in ended["updates"]] == ["a", "b"]


async def test_a_replacement_answers_for_the_place_of_the_one_who_left(garden: Garden) -> None:
    await garden.create()
    stream = await garden.start_round(("a", "b", "c"))
    await garden.submit("c", garden.put_model(3))
    await garden.heard(stream, 1)
    await garden.replace(1, "b", by="x")
    await garden.replace(2, "c", by="y")  # but c has answered already
    await garden.submit("y", garden.put_model(7))
    await garden.heard(stream, 2)
    await garden.submit("x", garden.put_model(2))
    await garden.submit("a", garden.put_model(1))
    ended = await garden.outcome(stream)
    assert [(one["client_id"], one["place"]) for one in ended["updates"]] == [
        ("a", 0), ("x", 1), ("c", 2)
    ]  # fmt: skip
    assert ("y", "late") in answers(await garden.events(stream))
    await garden.submit("b", garden.put_model(2))
    assert answers(await garden.heard(stream, 6))[-1] == ("b", "late")


async def test_an_exchange_in_whose_place_another_was_started_ends(garden: Garden) -> None:
    """So no update that is owed to both can be in two aggregates."""
    await garden.create()
    await garden.stop()  # too long for the orchestrator
    stream = await garden.start_round(("a",), seconds=-60)
    await garden.submit("a", garden.put_model(1))
    await garden.start_round(("a",), attempt=2)
    await garden.start()
    ended = await garden.outcome(stream)
    assert (ended["type"], ended["code"]) == ("aggregate.failed", "superseded")


async def test_rows_from_before_late_updates_are_still_read(
    service_database: MakeDatabase, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    first = MIGRATIONS / "0101_exchanges.sql"
    (before / first.name).write_text(first.read_text())
    made = await service_database("aggregator", [before])
    owner = await made.owner()
    await answered_before(owner, "a")
    await migrate(owner, "aggregator", [MIGRATIONS])
    await answered_before(owner, "b")  # the release before may still run
    async with made.database.transaction("acme") as tx:
        rows = await tx.fetch("SELECT work_id FROM answers ORDER BY client_id")
    assert [row["work_id"] for row in rows] == [
        work_id("fed-1", 2, 1, "train", name) for name in "ab"
    ]


async def answered_before(owner: Connection, client_id: str) -> None:
    """Write an answer as it was written before answers had work ids."""
    async with owner.transaction():
        await set_tenant(owner, "acme")
        await owner.execute(
            "INSERT INTO answers (stream, client_id, tenant, code)"
            " VALUES ('exchange-fed-1-2-1-train', $1, 'acme', 'accepted')",
            client_id,
        )


class Woken:
    """Stands for the workers of all exchanges."""

    def __init__(self) -> None:
        self.streams: set[str] = set()
        self.federations: set[str] = set()

    def wake(self, federation_id: str, stream: str) -> None:
        self.streams.add(stream)

    def wake_workers(self, federation_id: str) -> None:
        self.federations.add(federation_id)

    def drop(self, federation_id: str) -> None:
        """There is none."""


async def heard(garden: Garden, place: int, event: Event) -> Woken:
    """Who is woken by an event, in a service that has no other work."""
    woken = Woken()
    recorded = Recorded(
        position=1,
        stream="other",
        version=1,
        id=uuid4(),
        type=event.type,
        schema_version=event.schema_version,
        event=event,
        context=Context(tenant="acme", correlation_id=garden.federation_id),
        recorded_at=datetime.now(UTC),
    )
    handlers = consumers(cast(AllExchanges, woken), lambda federation_id: None)[place].handlers
    async with garden.made.database.transaction("acme") as tx:
        await handlers[type(event)](tx, recorded)
    return woken


async def told(garden: Garden, count: int) -> None:
    """The service has handled so many facts of the orchestrator's."""
    shell = garden.shell
    assert shell is not None
    await eventually(lambda: shell.handled("orchestrator") == count, f"{count} facts are heard")


async def test_a_federations_end_looks_for_reports_that_are_still_being_recorded(
    garden: Garden,
) -> None:
    """Its transaction does not see them, and they were looked for before it had ended."""
    base = await first_round(garden)
    second = await second_round(garden, base)
    await told(garden, 3)
    await garden.stop()
    ended = FederationCancelled(federation_id=garden.federation_id, reason="enough")
    woken = await heard(garden, 0, ended)
    assert woken.streams == {garden.stream(1), second}


async def test_a_report_wakes_the_exchange_that_is_being_recorded_and_may_list_it(
    garden: Garden,
) -> None:
    """Its transaction does not see that one, and the worker looked before there was a report."""
    await first_round(garden)
    await told(garden, 2)
    await garden.stop()
    report = UpdateFailed(
        federation_id=garden.federation_id, round_number=1, attempt=1, exchange="train",
        client_id="c", work_id=work_id(garden.federation_id, 1, 1, "train", "c"), lease_epoch=1,
        code="app-failed", detail="",
    )  # fmt: skip
    woken = await heard(garden, 1, report)
    assert (woken.streams, woken.federations) == ({garden.stream(1)}, {garden.federation_id})
