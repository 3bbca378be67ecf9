"""A service's tables, to files and back.

What belongs to the cluster alone stays behind: the numbers of its transactions (`events.xid`) and
how far its JetStream streams were filled. Loaded rows share one new transaction, so the relay
publishes them in the order of `gpos`.
"""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

from flowerbed.embedded.backup.manifest import Dump, Table
from flowerbed.embedded.databases import Session

_LEFT_BEHIND = ("schema_migrations", "relay_marks")
_CHUNK = 1 << 18

_TABLES = """
SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> ALL ($1)
    AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    AND NOT (c.relname = 'events' AND a.attname = 'xid')
GROUP BY c.relname ORDER BY c.relname
"""

_SEQUENCES = """
SELECT pg_get_serial_sequence(quote_ident(c.relname), a.attname) AS sequence,
    quote_ident(c.relname) AS name, quote_ident(a.attname) AS attribute
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attidentity <> ''
"""


async def dump(connection: Session, root: Path, folder: Path) -> Dump:
    """Every table as the connection's transaction sees it, to files in `folder`."""
    applied = await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")
    found = await connection.fetch(_TABLES, _LEFT_BEHIND)
    tables = [
        await _dump_table(connection, row["name"], tuple(row["columns"]), root, folder)
        for row in found
    ]
    return Dump(migrations=tuple(row["name"] for row in applied), tables=tuple(tables))


async def load(owner: Session, dumped: Dump, root: Path) -> None:
    """Into migrated, empty tables; all or nothing."""
    async with owner.transaction():
        for table in dumped.tables:
            with gzip.open(root / table.file, "rb") as file:
                await owner.execute(f'DELETE FROM public."{table.name}"')
                await owner.copy_to_table(
                    table.name, source=_chunks(file), columns=table.columns, schema_name="public"
                )
        for row in await owner.fetch(_SEQUENCES):
            await owner.execute(
                f"SELECT setval('{row['sequence']}',"
                f" (SELECT coalesce(max({row['attribute']}), 0) + 1 FROM {row['name']}), false)"
            )
    await owner.execute("ANALYZE")


async def _dump_table(
    connection: Session, name: str, columns: tuple[str, ...], root: Path, folder: Path
) -> Table:
    path = folder / f"{name}.copy.gz"
    quoted = ", ".join(f'"{column}"' for column in columns)
    order = " ORDER BY gpos" if name == "events" else ""
    with gzip.open(path, "wb", compresslevel=1) as file:

        async def write(data: bytes) -> None:
            file.write(data)

        done = await connection.copy_from_query(
            f'SELECT {quoted} FROM public."{name}"{order}', output=write
        )
    rows = int(done.rsplit(" ", 1)[1])
    return Table(name=name, columns=columns, n_rows=rows, file=str(path.relative_to(root)))


async def _chunks(file: gzip.GzipFile) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
