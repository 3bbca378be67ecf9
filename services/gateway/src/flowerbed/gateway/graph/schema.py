"""The schema and its limits. `contracts/schema.graphql` is written from it."""

import re
from collections.abc import AsyncGenerator
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from flowerbed.gateway.graph.context import Context
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

    async def stream(self, query: str | None, *arguments: Any, **named: Any) -> Any:
        """What comes over a WebSocket: subscriptions, and queries too."""
        context = named.get("context_value")
        refused = _unkept(query, named.get("variable_values"))
        if refused is None and isinstance(context, Context):
            refused = _too_often(context)
        if refused is not None:
            return _only(PreExecutionError(data=None, errors=[refused]))
        return await super().stream(query, *arguments, **named)

    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Only what nobody expected is for the log."""
        log_unexpected(errors)


async def _only(result: PreExecutionError) -> AsyncGenerator[PreExecutionError, None]:
    yield result


def _too_often(context: Context) -> GraphQLError | None:
    """A WebSocket passes the gateway's door once, however much is asked over it."""
    seconds = context.seconds_to_wait()
    if not seconds:
        return None
    told = {"code": "too-many-requests", "status": 429, "retryAfter": seconds}
    return GraphQLError(f"too often: ask again in {seconds} s", extensions=told)


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
