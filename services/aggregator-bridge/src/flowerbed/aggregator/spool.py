"""The files of one exchange on this machine: updates that wait for the fold, and bases.

Nothing here is kept for its own sake: whatever is gone is fetched from S3 again, by its digest.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.values import ArtifactRef


@dataclass(frozen=True, slots=True)
class Spool:
    """In `folder`, one file a piece of work, and one a base: as many as late updates have."""

    blobs: Blobs
    folder: Path
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def update(self, work_id: str) -> Path:
        """Where the update of this work lies, if it was fetched."""
        name = hashlib.sha256(work_id.encode()).hexdigest()[:32]
        return self.folder / f"{name}.safetensors"

    def base(self, ref: ArtifactRef) -> Path:
        """The base's file; fetched if it is not there. Blocks.

        Raises:
            NotFound, DigestDiffers: the object is gone, or another.
        """
        path = self.folder / f"base-{ref.sha256}.safetensors"
        with self._one_at_a_time:
            if not path.exists():
                self.blobs.download(ref.uri, path, sha256=ref.sha256)
        return path
