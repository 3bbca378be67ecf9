"""The schema and its limits. `contracts/schema.graphql` is written from it."""

import re
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from flowerbed.gateway.graph.kinds import Long, long_scalar
from flowerbed.gateway.graph.mutations import Mutation
from flowerbed.gateway.graph.problems import Problems, log_unexpected
from flowerbed.gateway.graph.queries import Query
from flowerbed.gateway.graph.subscriptions import Subscription

DEEPEST = 12
MOST_TOKENS = 2_000
MOST_ALIASES = 30


_NUL = re.compile(r"\\u(0000|\{0+\})")
"""As it can be written inside of a query."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Schema(strawberry.Schema):
    async def execute(self, query: str | None, *arguments: Any, **named: Any) -> Any:
        if refused := _unkept(query, named.get("variable_values")):
            return ExecutionResult(data=None, errors=[refused])
        return await super().execute(query, *arguments, **named)

    async def subscribe(self, query: str | None, *arguments: Any, **named: Any) -> Any:
        if refused := _unkept(query, named.get("variable_values")):
            return PreExecutionError(data=None, errors=[refused])
        return await super().subscribe(query, *arguments, **named)

    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Only what nobody expected is for the log."""
        log_unexpected(errors)


def _unkept(query: str | None, variables: Any) -> GraphQLError | None:
    """Postgres keeps no NUL, and UTF-8 has no half of a surrogate pair."""
    if not _NUL.search(query or "") and _is_text(variables):
        return None
    told = {"code": "not-valid", "status": 422}
    return GraphQLError("text holds a character that cannot be kept", extensions=told)


def _is_text(value: Any) -> bool:
    match value:
        case str():
            return "\0" not in value and not _SURROGATE.search(value)
        case dict():
            return all(_is_text(key) and _is_text(one) for key, one in value.items())
        case list():
            return all(_is_text(one) for one in value)
        case _:
            return True


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(batching_config=None, scalar_map={Long: long_scalar}),
    extensions=[
        lambda: QueryDepthLimiter(max_depth=DEEPEST),
        lambda: MaxTokensLimiter(max_token_count=MOST_TOKENS),
        lambda: MaxAliasesLimiter(max_alias_count=MOST_ALIASES),
        Problems,
    ],
)
