"""How a dataset is named without telling anything of it: from the digests of its files alone."""

import hashlib
import uuid
from collections.abc import Mapping

from flowerbed.contracts.values import DatasetRef, Sha256

DEFAULT_TASK = "dataset"
ABOUT = "dataset.json"
"""A file beside the data; its `task` says what they are for."""

_LABELS = uuid.UUID("3f6b8f52-5f86-4d5c-8f0e-0d7f6d1c8a44")


def reference_of(task: str, files: Mapping[str, Sha256]) -> DatasetRef:
    """The dataset of these files, each by its relative name.

    Its digest is sha256 over the sorted lines `<relative name> <sha256 of the file>\\n`.
    """
    lines = sorted(f"{name} {digest}\n" for name, digest in files.items())
    digest = hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    return DatasetRef(label=f"{task}-{uuid.uuid5(_LABELS, digest)}", sha256=digest)
