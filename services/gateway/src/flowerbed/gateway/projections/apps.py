"""apps: one row for each bundle that was pushed in a tenant."""

from typing import Any

from flowerbed.contracts.apps import AppPushed
from flowerbed.events.connection import Connection
from flowerbed.events.projection import Projection
from flowerbed.events.recorded import Recorded


async def apply(tx: Connection, recorded: Recorded[Any]) -> None:
    match recorded.event:
        case AppPushed() as pushed:
            await tx.execute(
                "INSERT INTO apps"
                " (tenant, sha256, name, version, publisher, size, uri, pushed_by, pushed_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
                recorded.context.tenant,
                pushed.sha256,
                pushed.name,
                pushed.version,
                pushed.publisher,
                pushed.size,
                pushed.uri,
                pushed.pushed_by,
                recorded.recorded_at,
            )


apps = Projection("apps", ("apps",), apply)
