"""Local checkpoints: a training that was killed goes on from its last kept epoch, to the same end.

A site that offers a directory names it in the node's config as `checkpoint-dir`; without one,
nothing is kept. The directory holds one file, `epoch-<finished epochs>.pt`, replaced whole.
"""

import hashlib
import io
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SECONDS_BETWEEN = 1.0
"""A short training is repeated sooner than kept: it never pays for what it does not need."""


class Checkpoints:
    """`training` says which training this is: a checkpoint of another one is left alone."""

    def __init__(self, folder: Path | None, training: str) -> None:
        self._folder = folder
        self._training = training
        self._kept_at = time.monotonic()

    def restore(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator
    ) -> tuple[int, float]:
        """Put everything back as it was kept; answers finished epochs and the last one's loss."""
        kept = self._newest()
        if kept is None:
            return 0, 0.0
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        order.set_state(kept["order"])
        torch.set_rng_state(kept["random"])
        return int(kept["epochs"]), float(kept["loss"])

    def keep(
        self,
        epochs: int,
        loss: float,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        order: torch.Generator,
    ) -> None:
        """Call after each epoch; keeps one a second at most. A full disk stops no training."""
        if self._folder is None or time.monotonic() - self._kept_at < SECONDS_BETWEEN:
            return
        content = {
            "training": self._training,
            "epochs": epochs,
            "loss": loss,
            "net": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "order": order.get_state(),
            "random": torch.get_rng_state(),
        }
        try:
            _replace(self._folder, epochs, content)
        except OSError as error:
            warnings.warn(f"epoch {epochs} is not kept: {error.strerror}", stacklevel=2)
        self._kept_at = time.monotonic()

    def _newest(self) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        for path in sorted(self._folder.glob("epoch-*.pt"), reverse=True):
            try:
                kept: dict[str, Any] = torch.load(path, weights_only=True)
            except Exception:  # a damaged file: torch has no one error for it
                continue
            if kept.get("training") == self._training:
                return kept
        return None


def _replace(folder: Path, epochs: int, content: Mapping[str, Any]) -> None:
    path = folder / f"epoch-{epochs:09d}.pt"
    incoming = folder / ".incoming.pt"
    buffer = io.BytesIO()  # torch's own writer may abort the process on a full disk
    torch.save(content, buffer)
    try:
        with incoming.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)
    for older in folder.glob("epoch-*.pt"):
        if older != path:
            older.unlink(missing_ok=True)


def folder_in(node_config: Mapping[str, object]) -> Path | None:
    """The directory that the site offers, if it does."""
    offered = node_config.get("checkpoint-dir")
    return None if offered is None else Path(str(offered))


def name_of(settings: object, arrays: Mapping[str, Tensor]) -> str:
    """Name a training: sha256 over its settings and the model it begins with."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, array in arrays.items():
        digest.update(f"\n{name} {tuple(array.shape)} ".encode())
        digest.update(array.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
