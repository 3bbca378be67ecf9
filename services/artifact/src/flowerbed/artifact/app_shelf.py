"""Takes bundles of Flower apps in: read, stored by digest, recorded."""

import asyncio
import tempfile
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import ClassVar

from flowerbed.artifact.apps import PushApp, app, stream_of
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.apps import AppPushed, bundle_key, bundle_uri
from flowerbed.contracts.bundle import BadBundle, Bundle, read_bundle
from flowerbed.contracts.values import Sha256
from flowerbed.events import release
from flowerbed.events.commands import handle
from flowerbed.events.context import Context
from flowerbed.events.database import Database
from flowerbed.events.errors import NotFound, Rejected
from flowerbed.events.store import EventStore


class BundleRefused(Rejected):
    code: ClassVar[str] = "bundle-refused"
    status = 422


class AppUnknown(NotFound):
    """This tenant never pushed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppShelf:
    database: Database
    store: EventStore
    blobs: Blobs
    bucket: str

    async def push(self, tenant: str, raw: bytes, actor: str | None) -> AppPushed:
        """Store the bundle and record that it was pushed; the same bytes again change nothing.

        Raises:
            BundleRefused: it is no bundle of a Flower app; nothing was stored.
            Unavailable: S3 or Postgres is away; push again.
        """
        try:
            bundle = await asyncio.to_thread(read_bundle, raw)
        except BadBundle as error:
            raise BundleRefused(f"this is no Flower app that can be taken: {error}") from error
        async with self.database.transaction(tenant) as tx:
            if not await release.reached(tx):
                raise release.UpgradeUnfinished()
        await asyncio.to_thread(self._keep, tenant, bundle, raw)
        pushed = AppPushed(
            sha256=bundle.sha256,
            size=bundle.size,
            uri=bundle_uri(self.bucket, tenant, bundle.sha256),
            name=bundle.name,
            version=bundle.version,
            publisher=bundle.publisher,
            pushed_by=actor or "",
        )
        context = Context(tenant=tenant, actor=actor)
        stream, command = stream_of(tenant, bundle.sha256), PushApp(pushed=pushed)
        await handle(self.database, self.store, app, stream, command, context)
        return await self.find(tenant, bundle.sha256)

    async def find(self, tenant: str, sha256: Sha256) -> AppPushed:
        """How the app was pushed, as soon as that is recorded.

        Raises:
            AppUnknown: this tenant never pushed it.
        """
        async with self.database.transaction(tenant) as tx:
            history = await self.store.read(tx, stream_of(tenant, sha256))
        events = [recorded.event for recorded in history]
        pushed = reduce(app.evolve, events, app.initial)
        if pushed is None:
            raise AppUnknown(f"no app fab:{sha256} was pushed in tenant {tenant!r}")
        return pushed

    def _keep(self, tenant: str, bundle: Bundle, raw: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="flowerbed-app-") as folder:
            path = Path(folder) / "app.fab"
            path.write_bytes(raw)
            key = bundle_key(tenant, bundle.sha256)
            self.blobs.put_if_absent(self.bucket, key, path, bundle.sha256)
