"""GraphQL types out of the gateway's views: what REST answers with is what GraphQL has.

A view that gets a field gets it here too, and the schema in `contracts/` with it. Resolvers return
the views themselves; GraphQL reads their attributes.
"""

from collections.abc import Mapping
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Generic, Literal, NewType, TypeVar, Union, get_args, get_origin

import strawberry
from graphql import GraphQLError
from pydantic import BaseModel
from strawberry.scalars import JSON

T = TypeVar("T")

Long = NewType("Long", int)
"""GraphQL's own Int ends at 32 bits."""

BEGINNING = Long(0)
LARGEST = 2**63 - 1
LONG = frozenset(
    (
        "position", "next_after", "size", "full_size", "sent", "full", "weight", "n_examples",
        "n_tokens", "last_position",
    )
)  # fmt: skip
"""Fields that may outgrow 32 bits."""

_known: dict[type[BaseModel], Any] = {}


def read_long(value: object) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        found = str(value)[:40]
        raise GraphQLError(f"a whole number from 0 to {LARGEST} is allowed, got {found!r}")
    return value


long_scalar = strawberry.scalar(
    name="Long",
    description="A whole number from 0 to 2^63 - 1, such as a position in the feed.",
    serialize=int,
    parse_value=read_long,
)


@strawberry.type(description="How to go on: ask for what is `after: endCursor`.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool = False
    start_cursor: str | None = None
    end_cursor: str | None = None


@strawberry.type
class Edge(Generic[T]):
    cursor: str
    node: T


@strawberry.type
class Connection(Generic[T]):
    edges: list[Edge[T]]
    nodes: list[T]
    page_info: PageInfo


def connection(rows: list[tuple[str, Any]], more: bool, *, behind: bool) -> Connection[Any]:
    """`behind`: it was asked for what lies behind a cursor, so something lies before it."""
    return Connection(
        edges=[Edge(cursor=cursor, node=node) for cursor, node in rows],
        nodes=[node for _, node in rows],
        page_info=PageInfo(
            has_next_page=more,
            has_previous_page=behind,
            start_cursor=rows[0][0] if rows else None,
            end_cursor=rows[-1][0] if rows else None,
        ),
    )


def paged(kind: Any) -> Any:
    """The connection type of a kind."""
    return Connection.__class_getitem__(kind)  # type: ignore[attr-defined]  # typing's own


def kind_of(
    view: type[BaseModel],
    *,
    name: str | None = None,
    without: frozenset[str] = frozenset(),
    resolved: Mapping[str, Any] | None = None,
) -> Any:
    """The type of a view; made once. `resolved`: further fields, with resolvers of their own."""
    if view in _known:
        return _known[view]
    fields = {
        field: _annotation(field, info.annotation)
        for field, info in view.model_fields.items()
        if field not in without and field not in (resolved or {})
    }
    told = " ".join((view.__doc__ or "").split())
    made = type(name or view.__name__, (), {"__annotations__": fields, **(resolved or {})})
    _known[view] = strawberry.type(made, name=name or view.__name__, description=told or None)
    return _known[view]


def _annotation(field: str, found: Any) -> Any:
    origin, inner = get_origin(found), get_args(found)
    if origin in (Union, UnionType):
        (one,) = [part for part in inner if part is not NoneType]
        return _annotation(field, one) | None
    if origin in (list, tuple):
        return list[_annotation(field, inner[0])]  # type: ignore[misc]  # made as it runs
    if origin is Literal:
        return str
    if origin is dict or found is Any:
        return JSON
    if found is int:
        return Long if field in LONG else int
    if isinstance(found, type) and issubclass(found, BaseModel):
        return kind_of(found)
    if found in (str, float, bool, datetime):
        return found
    raise TypeError(f"{field}: there is no GraphQL type for {found!r}")
