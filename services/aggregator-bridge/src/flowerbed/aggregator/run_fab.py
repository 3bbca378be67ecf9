"""The bundle that a federation's Flower runs are started with."""

import asyncio
from pathlib import Path
from typing import ClassVar

from flowerbed.aggregator.app_process import AppFailed
from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.contracts.apps import BUILTIN, bundle_uri, is_pushed
from flowerbed.contracts.bundle import (
    LARGEST_BUNDLE,
    BadBundle,
    files_of,
    read_bundle,
    run_config,
)
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.run_bundle import run_bundle
from flowerbed.events.errors import Rejected
from flowerbed.flower_apps import registry

RUNTIME = "superlink"


class NoSuperLink(Rejected):
    code: ClassVar[str] = "no-superlink"


async def check_run(bridge: Bridge, asked: Asked, folder: Path) -> None:
    """Can a run over a SuperLink be started for the federation?

    Raises:
        NoSuperLink: not here.
        AppFailed: its app cannot run so.
        NotFound: the federation's tenant never pushed it.
    """
    if not bridge.has_superlink:
        raise NoSuperLink(
            "this control plane has no SuperLink: start it with `flowerbed up --superlink`, or say"
            " runtime: bus"
        )
    await run_fab(bridge, asked.context.tenant, asked.created, folder)


async def run_fab(bridge: Bridge, tenant: str, created: FederationCreated, folder: Path) -> bytes:
    """The same bytes at each call, and at each site.

    Raises:
        AppFailed: it cannot be made of that app.
        NotFound: the tenant never pushed it.
    """
    spec = created.federation_spec.spec

    def make() -> bytes:
        hyper_parameters = spec.hyper_parameters
        if not is_pushed(spec.app):
            app = registry.find(spec.app.removeprefix(BUILTIN))
            config = app.default_config()
            return run_bundle({}, app.client_app, registry.bridge(), config, hyper_parameters)
        path = folder / "app.fab"
        uri = bundle_uri(bridge.bucket, tenant, created.code_hash)
        bridge.blobs.download(uri, path, sha256=created.code_hash, max_bytes=LARGEST_BUNDLE)
        raw = path.read_bytes()
        bundle = read_bundle(raw)
        config = run_config(bundle.config, hyper_parameters)
        return run_bundle(
            files_of(raw), bundle.client_app, registry.bridge(), config, hyper_parameters
        )

    try:
        return await asyncio.to_thread(make)
    except BadBundle as error:
        raise AppFailed(f"{spec.app} cannot run over a SuperLink: {error}") from error
