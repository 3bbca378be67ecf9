"""One row, written by whoever of several services speaks of it first.

Events of two services arrive in any order. A projection of both keeps each fact in columns of
its own, so that the row comes out the same whichever was first.
"""

import json
from collections.abc import Mapping
from typing import Any

from flowerbed.events.connection import Connection


async def upsert(
    tx: Connection, table: str, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Insert the row or set its columns. Table and column names come from code alone."""
    columns = [*key, *values]
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    settings = ", ".join(f"{column} = EXCLUDED.{column}" for column in values)
    await tx.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {settings}",
        *key.values(),
        *values.values(),
    )


async def update(
    tx: Connection, table: str, key: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Set columns of the row, if there is one."""
    names = [*key, *values]
    place = {name: f"${number}" for number, name in enumerate(names, 1)}
    settings = ", ".join(f"{column} = {place[column]}" for column in values)
    condition = " AND ".join(f"{column} = {place[column]}" for column in key)
    await tx.execute(
        f"UPDATE {table} SET {settings} WHERE {condition}", *key.values(), *values.values()
    )


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
