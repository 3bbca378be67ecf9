"""What all the work at one site shares: who we are, our data, our journal, and the ways out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from flowerbed.runner.dataset import Dataset, DatasetUnreadable
from flowerbed.runner.door import Door
from flowerbed.runner.errors import Refused
from flowerbed.runner.identity import Identity
from flowerbed.runner.journal import Journal
from flowerbed.runner.scrub import scrub
from flowerbed.runner.state import StateDir
from flowerbed.runner.status import StatusBoard
from flowerbed.runner.verify import KeyRing, Terms
from flowerbed.runner.warm import WORKER_COMMAND


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
    worker_command: Sequence[str] = WORKER_COMMAND
    held: set[str] = field(default_factory=set)

    async def terms(self) -> Terms:
        """What claims are held against, with the dataset as it is at this moment.

        Raises:
            Refused: the dataset cannot be read any more.
        """
        try:
            reference = await asyncio.to_thread(self.dataset.reference)
        except DatasetUnreadable as error:
            self.board.error(str(error))
            raise Refused("dataset-unreadable", "the site's dataset cannot be read") from error
        return Terms(
            client_id=self.identity.client_id,
            tenant=self.identity.tenant,
            dataset=reference,
            dataset_uri=self.dataset.uri,
        )

    def scrubbed(self, text: str) -> str:
        return scrub(text, self.dataset.folder, self.dataset.names())

    def forget_results(self) -> None:
        """Remove result files that no order can ask for any more."""
        needed = self.journal.needed_results(self.held)
        for path in self.state.results.glob("*.safetensors"):
            if path.stem not in needed:
                path.unlink(missing_ok=True)
