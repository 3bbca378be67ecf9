"""`/graphql`: queries and commands by POST, subscriptions by WebSocket (graphql-transport-ws).

A browser cannot send headers with a WebSocket, so the token may also come in `connection_init`:
`{"Authorization": "Bearer …"}`.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

from cross_web import HTTPException as Unreadable
from fastapi.requests import HTTPConnection
from starlette.exceptions import HTTPException
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from flowerbed.events.http import Unauthorized
from flowerbed.gateway.graph.context import Context, Sources
from flowerbed.gateway.graph.schema import schema

Authenticate: TypeAlias = Callable[[str | None], Awaitable[Any]]
"""The `Authorization` header in, who it is out; raises Unauthorized."""

PATH = "/graphql"
INIT_PATIENCE = timedelta(seconds=10)


class Door(GraphQLRouter[Context, None]):
    def __init__(self, authenticate: Authenticate, sources: Sources) -> None:
        async def context(connection: HTTPConnection) -> Context:
            found = Context(sources)
            if connection.scope["type"] == "http":
                found.principal = await authenticate(connection.headers.get("authorization"))
            return found

        super().__init__(
            schema,
            path=PATH,
            graphql_ide=None,
            allow_queries_via_get=False,
            context_getter=context,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=INIT_PATIENCE,
            multipart_uploads_enabled=False,
            include_in_schema=False,
        )
        self._authenticate = authenticate

    async def on_ws_connect(self, context: Context) -> Any:
        """The first message has come: now it must be known who speaks."""
        try:
            context.principal = await self._authenticate(_shown(context))
        except Unauthorized as error:
            told: dict[str, object] = {"code": "unauthorized", "detail": str(error)}
            raise ConnectionRejectionError(told) from error
        return await super().on_ws_connect(context)

    async def run(self, *arguments: Any, **named: Any) -> Any:
        """What is no GraphQL request is answered with a problem, as everywhere."""
        try:
            return await super().run(*arguments, **named)
        except Unreadable as error:
            raise HTTPException(error.status_code, error.reason) from error
        except RecursionError as error:
            raise HTTPException(400, "the request is nested too deeply") from error


def _shown(context: Context) -> str | None:
    """Of the header, or else of what `connection_init` carried."""
    assert context.request is not None
    if header := context.request.headers.get("authorization"):
        return str(header)
    given = context.connection_params
    for name in ("Authorization", "authorization"):
        value = given.get(name) if isinstance(given, dict) else None
        if isinstance(value, str):
            return value
    return None
