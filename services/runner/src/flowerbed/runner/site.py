"""What all the work at one site shares: who we are, our data, our journal, and the ways out."""

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx

from flowerbed.contracts.values import Scalar
from flowerbed.flower_apps.nursery import Start
from flowerbed.runner import storage
from flowerbed.runner.dataset import Dataset, DatasetGone, DatasetUnreadable
from flowerbed.runner.door import Door
from flowerbed.runner.errors import BadInput, Refused
from flowerbed.runner.identity import Identity
from flowerbed.runner.journal import Journal
from flowerbed.runner.memories import APP_STATE, LEFT_OUT
from flowerbed.runner.power import Power
from flowerbed.runner.scrub import Scrubber, scrub
from flowerbed.runner.site_policy import CODE, SitePolicy
from flowerbed.runner.state import StateDir, has_digest, sync_directory
from flowerbed.runner.status import StatusBoard
from flowerbed.runner.telemetry import Spans
from flowerbed.runner.verify import KeyRing, Terms
from flowerbed.runner.work_folder import WorkFolder, prune

logger = logging.getLogger(__name__)

MAY_PASS = frozenset({storage.DISK_FULL, DatasetGone.code, DatasetUnreadable.code})
"""Refusals whose cause the site itself may put right at any moment."""


_Left: TypeAlias = list[tuple[Path, Path, str]]
"""Files: where they lie, where they belong, and their sha256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    state: StateDir
    identity: Identity
    dataset: Dataset
    journal: Journal
    door: Door
    store: httpx.AsyncClient
    keys: KeyRing
    board: StatusBoard
    start_worker: Start
    node_config: Mapping[str, Scalar] = field(default_factory=dict)
    hands_out_logs: bool = True
    python: str | None = None
    has_supernodes: bool = False
    held: set[str] = field(default_factory=set)
    under_way: set[str] = field(default_factory=set)
    spans: Spans = field(default_factory=Spans)
    power: Power = field(default_factory=Power)

    async def terms(self) -> Terms:
        """What claims are held against, with the dataset as it is at this moment.

        Raises:
            Refused: the dataset is gone, or cannot be read any more.
        """
        try:
            reference = await asyncio.to_thread(self.dataset.reference)
        except DatasetGone as error:
            words = "the site's dataset is not where it was"
            raise Refused(error.code, words, at_site=str(error)) from error
        except BadInput as error:
            words = "the site's dataset cannot be read"
            raise Refused(DatasetUnreadable.code, words, at_site=str(error)) from error
        return Terms(
            client_id=self.identity.client_id,
            tenant=self.identity.tenant,
            dataset=reference,
            dataset_uri=self.dataset.uri,
        )

    def policy(self) -> SitePolicy:
        """What its operator allows at this moment.

        Raises:
            Refused: the file cannot be read: then nothing is allowed.
        """
        try:
            return SitePolicy.load(self.state)
        except BadInput as error:
            words = "the site's policy cannot be read"
            raise Refused(f"{CODE}-unreadable", words, at_site=str(error)) from error

    async def ready(self) -> Terms:
        """The same, if there is room for work as well.

        Raises:
            Refused: the dataset is gone or cannot be read, or the disk is full.
        """
        terms = await self.terms()
        storage.check_free(self.state.root, storage.RESERVE)
        return terms

    def scrubbed(self, text: str) -> str:
        return scrub(text, self.dataset.folder, self.dataset.names())

    def scrubber(self) -> Scrubber:
        """For many texts at once."""
        return Scrubber(self.dataset.folder, self.dataset.names())

    def work_folder(self, work: str) -> WorkFolder:
        return WorkFolder(self.state.work / work)

    def result_path(self, sha256: str) -> Path:
        return self.state.results / f"{sha256}.safetensors"

    def state_path(self, sha256: str) -> Path:
        return self.state.states / f"{sha256}.bin"

    async def take_over(self, work: str) -> None:
        """Move what journalled work has left in its folder to where it is kept; then tidy up.

        A crash may come between the journal and this: it is done again whenever it matters. The
        files are hashed once more, in a thread: they may be large, and heartbeats go on.
        """
        await asyncio.to_thread(_take_over, self.work_folder(work), self._left_by(work))

    def _left_by(self, work: str) -> _Left | None:
        """What is in the folder of journalled work, and where it is kept."""
        folder, finished = self.work_folder(work), self.journal.find(work)
        if finished is None:
            return None
        left: _Left = []
        if finished.sha256 is not None:
            left.append((folder.update, self.result_path(finished.sha256), finished.sha256))
        for here, memory in ((folder.app_state, APP_STATE), (folder.left, LEFT_OUT)):
            sha256 = self.journal.memory_after(memory, work)
            if sha256 is not None:
                left.append((here, self.state_path(sha256), sha256))
        return left

    def tidy(self) -> None:
        """Take over what a crash has left, and remove what no order can ask for any more.

        What the disk does not allow now waits for the next time.
        """
        try:
            for path in self.state.work.glob("*"):
                if path.name not in self.under_way:
                    _take_over(self.work_folder(path.name), self._left_by(path.name))
            prune(self.state.work, self.under_way)
            self.forget_results()
        except (OSError, sqlite3.Error) as error:
            logger.warning("the state directory is not tidied up: %s", error)

    def forget_results(self) -> None:
        """Remove result files that no order can ask for any more, and memories of no lease."""
        for folder, needed in (
            (self.state.results, self.journal.needed_results(self.held)),
            (self.state.states, self.journal.needed_memories()),
        ):
            for path in folder.iterdir():
                if path.stem not in needed:
                    path.unlink(missing_ok=True)


def _take_over(folder: WorkFolder, left: _Left | None) -> None:
    if left is None:
        return
    for here, there, sha256 in left:
        _move(here, there, sha256)
    folder.remove()


def _move(here: Path, there: Path, sha256: str) -> None:
    if has_digest(here, sha256):
        here.replace(there)
        sync_directory(there.parent)
