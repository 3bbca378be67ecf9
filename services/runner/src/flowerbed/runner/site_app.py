"""The app of one lease, as it lies at this site: installed with us, or fetched and unpacked."""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from flowerbed.contracts.apps import is_pushed
from flowerbed.contracts.bundle import BadBundle, Bundle, run_config, unpack
from flowerbed.contracts.door import LeaseKey
from flowerbed.contracts.signed import Manifest
from flowerbed.contracts.values import Scalar
from flowerbed.flower_apps import registry
from flowerbed.runner import clock, storage, transfer
from flowerbed.runner.errors import NotReachable, Refused
from flowerbed.runner.patience import patiently
from flowerbed.runner.state import StateDir
from flowerbed.runner.verify import app_name

logger = logging.getLogger(__name__)

KEPT_BUNDLES = 10
FETCH_SECONDS = 20.0
"""For a bundle: other offers wait meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteApp:
    """`folder`: where it is unpacked; None for one that is installed here.

    `bundle`: what was unpacked there. `config`: the run config, the app's own defaults and what
    the federation says instead.
    """

    name: str
    config: Mapping[str, Scalar]
    folder: Path | None = None
    bundle: Bundle | None = None

    @property
    def client_app(self) -> str:
        return "" if self.bundle is None else self.bundle.client_app


async def site_app(state: StateDir, store: httpx.AsyncClient, manifest: Manifest) -> SiteApp:
    """Have the manifest's app here, whole.

    Raises:
        Refused: it is not installed, cannot be had, or is not what the manifest names.
    """
    if not is_pushed(manifest.app):
        name = app_name(manifest.app)
        return SiteApp(name=name, config=registry.find(name).default_config())
    folder = state.unpacked(manifest.lease_id, manifest.lease_epoch)
    try:
        path = await _fetched(state, store, manifest)
        raw = await asyncio.to_thread(path.read_bytes)
        bundle = await asyncio.to_thread(unpack, raw, folder)
    except BadBundle as error:
        raise Refused("bad-app", f"{manifest.app} cannot be unpacked: {error}") from error
    except OSError as error:
        raise storage.refusal(error, state.root) from error
    if bundle.sha256 != manifest.code_hash:
        raise Refused("code-hash", f"{manifest.app} has sha256 {bundle.sha256}")
    logger.info(
        "%s is %s %s, which says that %s publishes it",
        manifest.app, bundle.name, bundle.version, bundle.publisher,
    )  # fmt: skip
    config = run_config(bundle.config, manifest.hyper_parameters)
    return SiteApp(
        name=f"{bundle.name} {bundle.version}",
        config=config,
        folder=folder,
        bundle=bundle,
    )


async def _fetched(state: StateDir, store: httpx.AsyncClient, manifest: Manifest) -> Path:
    download, sha256 = manifest.app_download, manifest.code_hash
    if download is None:
        raise Refused("claims", "the manifest does not say where its app lies")

    async def get() -> Path:
        return await transfer.download_app(store, download.url, sha256, state.apps)

    try:
        path = await patiently(get, until=min(manifest.exp, clock.now() + FETCH_SECONDS))
    except NotReachable as error:
        raise Refused("app-not-available", f"the app cannot be fetched: {error}") from error
    forget_old(state.apps)
    return path


def forget_old(folder: Path) -> None:
    """Of the bundles only the ones that were used last stay."""
    with suppress(OSError):
        found = sorted(folder.glob("*.fab"), key=lambda path: path.stat().st_mtime_ns)
        for path in found[:-KEPT_BUNDLES]:
            path.unlink(missing_ok=True)


def forget_unpacked(state: StateDir, key: LeaseKey) -> None:
    shutil.rmtree(state.unpacked(key.lease_id, key.epoch), ignore_errors=True)
