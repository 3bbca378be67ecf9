"""One statement a kind, however many federations a query is about; and walls between tenants."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs
import pytest

from flowerbed.gateway.cursors import CursorUnreadable
from flowerbed.gateway.graph.context import Context, Sources
from flowerbed.gateway.graph.schema import schema
from flowerbed.gateway.many import ROUNDS, UPDATES, Many, TooMuch, Wanted
from flowerbed.gateway.places import encoded_place
from flowerbed.gateway.principal import local_principal
from flowerbed.gateway.reads import Reads
from tests.integration.gateway.conftest import Kept
from tests.integration.gateway.story import FED, OTHER, TENANT, whole_story

QUERY = """
query ($first: Int!) {
  federations(first: $first) { nodes {
    name status spec metrics final { sha256 }
    rounds(first: 5) { nodes { roundNumber updates(first: 10) { nodes { clientId status } } } }
    clients { nodes { clientId tags } }
    artifacts { nodes { sha256 } }
    events(first: 3) { nodes { type } }
    lineage { isComplete }
  } }
}
"""


async def _fill(kept: Kept, n_federations: int) -> None:
    """Federations of two tenants, each with two rounds of two updates."""
    for tenant in (TENANT, OTHER):
        async with kept.made.database.transaction(tenant) as tx:
            await tx.execute(
                "INSERT INTO federations (tenant, federation_id, submission_id, name, status,"
                " created_at, updated_at) SELECT $1, 'fed-' || $1 || n, 's', 'demo', 'running',"
                " now() + n * interval '1 s', now() FROM generate_series(1, $2) AS n",
                tenant,
                n_federations // 2,
            )
            await tx.execute(
                "INSERT INTO rounds (tenant, federation_id, round_number, attempt, evaluation)"
                " SELECT tenant, federation_id, n, 1, '{\"accuracy\": 0.5}'"
                " FROM federations, generate_series(1, 2) AS n"
            )
            await tx.execute(
                "INSERT INTO round_updates (tenant, federation_id, round_number, attempt, exchange,"
                " client_id, status) SELECT tenant, federation_id, round_number, 1, 'train',"
                " 'client-' || n, 'accepted' FROM rounds, generate_series(1, 2) AS n"
            )


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements with arguments that are sent meanwhile; what sets the tenant is left out."""
    sent: list[str] = []
    execute = asyncpg.Connection._execute

    async def noting(self: Any, query: str, *rest: Any, **more: Any) -> Any:
        if "set_config" not in query:
            sent.append(query)
        return await execute(self, query, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "_execute", noting)
        yield sent


def _context(kept: Kept) -> Context:
    database = kept.made.database
    nothing: Any = None
    context = Context(
        Sources(
            reads=Reads(database),
            many=Many(database),
            feed=nothing,
            slos=nothing,
            submissions=nothing,
            upstreams={},
            hurry=lambda: None,
        )
    )
    context.principal = local_principal()
    return context


async def test_fifty_federations_cost_as_many_statements_as_two(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(kept, 50)
    counts = []
    for first in (2, 50):
        with counted(monkeypatch) as sent:
            found = await schema.execute(QUERY, {"first": first}, context_value=_context(kept))
        assert found.errors is None and found.data is not None
        nodes = found.data["federations"]["nodes"]
        assert len(nodes) == first
        assert all(len(one["rounds"]["nodes"]) == 2 for one in nodes)
        assert all(
            [update["clientId"] for update in a_round["updates"]["nodes"]]
            == ["client-1", "client-2"]
            for one in nodes
            for a_round in one["rounds"]["nodes"]
        )
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 10


async def test_what_belongs_to_one_tenant_is_not_given_to_another(kept: Kept) -> None:
    await kept.keep(whole_story().told)
    many = Many(kept.made.database)
    (mine,) = await many.pages(ROUNDS, [(TENANT, FED)], Wanted(50))
    (theirs,) = await many.pages(ROUNDS, [(OTHER, FED)], Wanted(50))
    both = await many.pages(ROUNDS, [(OTHER, FED), (TENANT, FED)], Wanted(50))

    assert len(mine.rows) == 3 and theirs.rows == []
    assert [len(page.rows) for page in both] == [0, 3]
    assert await many.federations([(OTHER, FED)]) == [None]


async def test_more_than_can_be_answered_at_once_is_refused(kept: Kept) -> None:
    with pytest.raises(TooMuch, match="200 times 200 rounds are 40000"):
        await Many(kept.made.database).pages(ROUNDS, [(TENANT, FED)] * 200, Wanted(200))


@pytest.mark.parametrize(
    "place", ['["train"]', '[1, "a"]', '["train", 1]', "[]", "{}", "7", '["a\\u0000", "b"]']
)
async def test_a_cursor_of_another_listing_is_refused(kept: Kept, place: str) -> None:
    many = Many(kept.made.database)
    with pytest.raises(CursorUnreadable):
        await many.pages(UPDATES, [(TENANT, FED, 1, 1)], Wanted(5, encoded_place(place)))


@pytest.mark.parametrize("cursor", ["", "=", "nonsense", "\u00e9", "WzFd"])
async def test_a_cursor_that_was_not_given_out_is_refused(kept: Kept, cursor: str) -> None:
    with pytest.raises(CursorUnreadable):
        await Many(kept.made.database).pages(ROUNDS, [(TENANT, FED)], Wanted(5, cursor))
