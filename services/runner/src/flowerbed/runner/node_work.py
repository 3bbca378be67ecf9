"""One lease of a federation over a SuperLink: its SuperNode does the work, the agent watches it.

The SuperNode is started once the lease is claimed, and ends with it. What the site allows was
checked before; that, and its dataset, are looked at again with every heartbeat.
"""

import asyncio
import hashlib
import logging

from flowerbed.contracts.bundle import BadBundle, files_of
from flowerbed.contracts.door import LeaseHeld, LeaseKey
from flowerbed.contracts.run_bundle import run_bundle
from flowerbed.contracts.signed import Manifest
from flowerbed.contracts.values import DatasetRef, Sha256
from flowerbed.flower_apps import registry
from flowerbed.runner.door import ANSWER_SECONDS
from flowerbed.runner.errors import NotAdmitted, Refused, RunnerError
from flowerbed.runner.lease_work import SHORTEST_PATIENCE
from flowerbed.runner.node_files import NodeFiles
from flowerbed.runner.patience import patiently
from flowerbed.runner.site import Site
from flowerbed.runner.site_app import SiteApp
from flowerbed.runner.site_policy import SUPERLINK
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import LeaseStatus
from flowerbed.runner.supernode import SuperNode, flower_programs
from flowerbed.runner.tunnel import Tunnel

logger = logging.getLogger(__name__)

LABEL_ENTROPY = "flowerbed-label-entropy"
"""As `flower_apps/bridge.py` spells it."""
LONGEST_BEAT = 5.0
"""Seconds: what a SuperNode lost is sent again once a heartbeat has said that it is idle."""


def node_files(state: StateDir, lease: LeaseKey) -> NodeFiles:
    """Of one epoch of the lease: the key of an earlier one is let in no more."""
    return NodeFiles(state.supernodes / f"{lease.lease_id}-{lease.epoch}")


def node_key(site: Site, manifest: Manifest) -> str | None:
    """What the claim tells of the lease's SuperNode; None where it has none.

    Raises:
        Refused: the federation needs one, and this site runs none.
    """
    if manifest.runtime != SUPERLINK:
        return None
    if not site.has_supernodes:
        raise Refused(
            "no-supernode",
            "the federation runs over a SuperLink, and this site was not started with --superlink",
        )
    key = LeaseKey(lease_id=manifest.lease_id, epoch=manifest.lease_epoch)
    return node_files(site.state, key).public_key()


async def fab_sha256(state: StateDir, manifest: Manifest, app: SiteApp) -> Sha256:
    """The digest of the one bundle that may run under the lease.

    Raises:
        Refused: the app cannot run over a SuperLink.
    """

    def make() -> Sha256:
        files, client_app = {}, app.client_app
        if app.folder is None:
            client_app = registry.find(app.name).client_app
        else:
            files = files_of((state.apps / f"{manifest.code_hash}.fab").read_bytes())
        raw = run_bundle(
            files, client_app, registry.bridge(), app.config, manifest.hyper_parameters
        )
        return hashlib.sha256(raw).hexdigest()

    try:
        return await asyncio.to_thread(make)
    except BadBundle as error:
        raise Refused("bad-app", f"it cannot run over a SuperLink: {error}") from error


class NodeWork:
    """`is_busy` is false: what a SuperNode is at cannot be waited for."""

    def __init__(
        self, site: Site, manifest: Manifest, held: LeaseHeld, app: SiteApp, dataset: DatasetRef
    ) -> None:
        """`dataset`: with which the lease was claimed."""
        self.key = LeaseKey(lease_id=held.lease_id, epoch=held.epoch)
        self.is_busy = False
        self.is_stopping = False
        self._site = site
        self._manifest = manifest
        self._app = app
        self._dataset = dataset
        self._files = node_files(site.state, self.key)
        self._beat_seconds = held.heartbeat_seconds
        self._shown = ""

    async def run(self) -> None:
        """Until told to stop.

        Raises:
            LeaseLost: the control plane says that the lease is over.
            Refused: the site's data changed, or the SuperLink handed out other code.
        """
        config = {
            **self._site.node_config,
            "data-path": str(self._site.dataset.folder),
            LABEL_ENTROPY: self._site.policy().label_entropy,
        }
        self._files.public_key()
        self._files.write_config(config)
        digest = await fab_sha256(self._site.state, self._manifest, self._app)
        tunnel = Tunnel(self._site.door.hand_on, digest)
        await tunnel.open(self._files.server_context())
        node = SuperNode(self._files, flower_programs(self._site.python), tunnel.port)
        running = asyncio.create_task(node.run())
        try:
            while not self.is_stopping:
                await self._beat(tunnel, node)
                await asyncio.wait({running}, timeout=min(LONGEST_BEAT, self._beat_seconds))
                if running.done():
                    running.result()
        except Refused as refusal:
            await self._tell(refusal)
            raise
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await tunnel.close()

    async def _beat(self, tunnel: Tunnel, node: SuperNode) -> None:
        site, within = self._site, max(SHORTEST_PATIENCE, min(ANSWER_SECONDS, self._beat_seconds))
        if tunnel.refused is not None:
            raise Refused("code-hash", tunnel.refused)
        policy = site.policy()
        policy.check_offer(self._manifest)
        policy.check_claims(self._manifest, self._app.bundle)
        if (dataset := (await site.terms()).dataset) != self._dataset:
            raise Refused(
                "dataset-changed",
                f"the dataset is {dataset.sha256}, the lease was claimed with"
                f" {self._dataset.sha256}",
            )
        self._files.touch()
        try:
            held = await patiently(
                lambda: site.door.heartbeat(self.key, within, tunnel.idle_seconds)
            )
            self._beat_seconds = held.heartbeat_seconds
        except NotAdmitted as error:
            site.board.error(str(error))
        again = f", started again {node.restarts} times" if node.restarts else ""
        self._show(f"its SuperNode runs{again}")

    async def _tell(self, refusal: Refused) -> None:
        detail = self._site.scrubbed(refusal.detail)
        try:
            await self._site.door.decline(self.key, refusal.code, detail)
        except RunnerError as error:
            logger.warning("nobody was told: %s", error)

    def _show(self, doing: str) -> None:
        if doing == self._shown:
            return
        self._shown = doing
        manifest = self._manifest
        self._site.board.lease(
            LeaseStatus(
                lease_id=self.key.lease_id,
                federation_id=manifest.federation_id,
                epoch=self.key.epoch,
                app=manifest.app,
                doing=doing,
            )
        )
