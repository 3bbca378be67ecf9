"""The files of one exchange on this machine: updates that wait for the fold, and bases.

Nothing here is kept for its own sake: whatever is gone is fetched from S3 again, by its digest.
"""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.aggregator.decoding import decode_file, pick
from flowerbed.aggregator.transport import Transport
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.forms import UpdateForm
from flowerbed.contracts.values import ArtifactRef
from flowerbed.flower_apps.forms import Form


@dataclass(frozen=True, slots=True)
class Spool:
    """In `folder`, one file a piece of work, and one a base: as many as late updates have.

    `form`: in which updates travel; None is as they are.
    `trainable`: which tensors travel; none named is all.
    """

    blobs: Blobs
    folder: Path
    form: Form | None = None
    trainable: tuple[str, ...] = ()
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def fetch(
        self,
        transport: Transport,
        work_id: str,
        update: ArtifactRef,
        base: ArtifactRef,
        max_bytes: int | None = None,
    ) -> Path:
        """The update's file, as its tensors are. Blocks.

        Raises:
            NotFound, DigestDiffers, TooLarge: the object is gone, or another.
            BadEncoding: it is not in the form that is wanted.
        """
        path = self.update(work_id)
        if self.form is None:
            transport.fetch(update, path, max_bytes)
            return path
        encoded = path.with_suffix(".encoded")
        try:
            transport.fetch(update, encoded, max_bytes)
            decode_file(self.form, encoded, self.base(base), base.sha256, path)
        finally:
            encoded.unlink(missing_ok=True)
        return path

    def update(self, work_id: str) -> Path:
        """Where the update of this work lies, if it was fetched."""
        name = hashlib.sha256(work_id.encode()).hexdigest()[:32]
        return self.folder / f"{name}.safetensors"

    @classmethod
    def of(cls, blobs: Blobs, folder: Path, update: UpdateForm) -> "Spool":
        """For updates as the spec wants them."""
        form = Form.named(update.form, update.block, update.fraction)
        return cls(blobs, folder, form, update.trainable)

    def base(self, ref: ArtifactRef) -> Path:
        """The file with those tensors of the base that travel. Blocks.

        Raises:
            NotFound, DigestDiffers: the object is gone, or another.
        """
        whole = self.file(ref)
        if not self.trainable:
            return whole
        path = self.folder / f"trained-{ref.sha256}.safetensors"
        with self._one_at_a_time:
            if not path.exists():
                pick(whole, path, self.trainable)
        return path

    def file(self, ref: ArtifactRef) -> Path:
        """The object's file; fetched if it is not there. Blocks.

        Raises:
            NotFound, DigestDiffers: the object is gone, or another.
        """
        path = self.folder / f"base-{ref.sha256}.safetensors"
        with self._one_at_a_time:
            if not path.exists():
                self.blobs.download(ref.uri, path, sha256=ref.sha256)
        return path
