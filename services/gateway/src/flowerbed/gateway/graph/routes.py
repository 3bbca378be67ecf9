"""`/graphql`: queries and commands by POST, subscriptions by WebSocket (graphql-transport-ws).

A browser cannot send headers with a WebSocket, so the token may also come in `connection_init`:
`{"Authorization": "Bearer …"}`.
"""

from datetime import timedelta
from typing import Any

from cross_web import HTTPException as Unreadable
from fastapi.requests import HTTPConnection
from starlette.exceptions import HTTPException
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from flowerbed.events.errors import Unavailable
from flowerbed.events.http import Unauthorized
from flowerbed.gateway.auth import ANYBODY, Authenticator
from flowerbed.gateway.graph.context import Context, Sources
from flowerbed.gateway.graph.schema import schema
from flowerbed.gateway.noting import note
from flowerbed.gateway.rates import Limiter, Rate

PATH = "/graphql"
INIT_PATIENCE = timedelta(seconds=10)


class GraphDoor(GraphQLRouter[Context, None]):
    """Each resolver asks for the role that it needs: one request may need several.

    `rate`: of what one principal asks over WebSockets.
    """

    def __init__(self, authenticator: Authenticator, sources: Sources, rate: Rate) -> None:
        limiter = Limiter(rate)

        async def context(connection: HTTPConnection) -> Context:
            found = Context(sources, limiter if connection.scope["type"] != "http" else None)
            found.principal = connection.scope.get("state", {}).get("principal")
            note(is_write=False)  # a command says of itself that it is one
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
            dependencies=[ANYBODY],
        )
        self._authenticator = authenticator

    async def on_ws_connect(self, context: Context) -> Any:
        """The first message has come: now it must be known who speaks."""
        try:
            context.principal = await self._authenticator.authenticate(_shown(context))
        except (Unauthorized, Unavailable) as error:
            code = "unauthorized" if isinstance(error, Unauthorized) else "unavailable"
            told: dict[str, object] = {"code": code, "detail": str(error)}
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
