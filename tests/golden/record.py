"""Record a finished federation of a running stack, as the golden streams are.

python -m tests.golden.record STATE_DIR FEDERATION_ID NAME

Writes streams/NAME.jsonl (every event of the federation and of its clients, as stored) and
streams/NAME.states.json (what they replay to). A recording is never changed afterwards: that old
histories are still understood is the point.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # has no stubs

from flowerbed.embedded.stack import Stack
from tests.golden.replay import STREAMS, load, states

SERVICES = ("orchestrator", "lease", "aggregator", "artifact")

_EVENTS = """
SELECT stream, version, id, type, schema_version, tenant, data, meta, recorded_at FROM events
WHERE meta->>'correlation_id' = $1 OR stream = ANY($2) ORDER BY gpos
"""


async def _history(dsn: str, federation_id: str, clients: list[str]) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_EVENTS, federation_id, clients)
    finally:
        await connection.close()
    return [
        {
            **dict(row),
            "id": str(row["id"]),
            "data": json.loads(row["data"]),
            "meta": json.loads(row["meta"]),
            "recorded_at": row["recorded_at"].isoformat(),
        }
        for row in rows
    ]


async def _clients(dsn: str, federation_id: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT client_id FROM leases WHERE federation_id = $1", federation_id
        )
    finally:
        await connection.close()
    return [f"client-{row['client_id']}" for row in rows]


async def record(state_dir: Path, federation_id: str, name: str) -> None:
    stack = Stack(state_dir)
    clients = await _clients(stack.postgres_dsn("lease", "reader"), federation_id)
    with (STREAMS / f"{name}.jsonl").open("w") as out:
        for service in SERVICES:
            dsn = stack.postgres_dsn(service, "reader")
            for event in await _history(dsn, federation_id, clients):
                line = {"service": service, **event}
                out.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
    write_states(name)


def write_states(name: str) -> None:
    text = json.dumps(states(load(name)), indent=1, sort_keys=True) + "\n"
    (STREAMS / f"{name}.states.json").write_text(text)


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
