"""The schema and its limits. `contracts/schema.graphql` is written from it."""

from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxAliasesLimiter, MaxTokensLimiter, QueryDepthLimiter
from strawberry.schema.config import StrawberryConfig

from flowerbed.gateway.graph.kinds import Long, long_scalar
from flowerbed.gateway.graph.mutations import Mutation
from flowerbed.gateway.graph.problems import Problems, log_unexpected
from flowerbed.gateway.graph.queries import Query
from flowerbed.gateway.graph.subscriptions import Subscription

DEEPEST = 12
MOST_TOKENS = 2_000
MOST_ALIASES = 30


class Schema(strawberry.Schema):
    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        """Only what nobody expected is for the log."""
        log_unexpected(errors)


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
