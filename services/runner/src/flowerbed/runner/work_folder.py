"""Where a piece of work is kept while it is under way, so that no death loses what was done.

work/<digest of its WorkKey>/
    checkpoint/            the app's own, offered to it as `checkpoint-dir`
    update.safetensors     what the app gave,
    state.bin              and what it remembers from then on
    left.bin               what the update's form has left out
    result.json            written last: with it, the work is finished
"""

import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from flowerbed.runner import clock
from flowerbed.runner.pipe import Result
from flowerbed.runner.state import has_digest, write_private

KEPT_SECONDS = 24 * 3600.0
"""Work that nobody has ordered again for so long is forgotten."""
LARGEST = 4 << 30
"""Bytes that one piece of work may keep."""
LARGEST_TOGETHER = 8 << 30
"""Bytes that all work which is not under way may keep."""

_EPOCH = re.compile(r"epoch-(\d+)\b")


@dataclass(frozen=True, slots=True)
class WorkFolder:
    path: Path

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def update(self) -> Path:
        return self.path / "update.safetensors"

    @property
    def app_state(self) -> Path:
        return self.path / "state.bin"

    @property
    def left(self) -> Path:
        return self.path / "left.bin"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def make(self) -> None:
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.checkpoint.mkdir(mode=0o700, exist_ok=True)

    def finish(self, result: Result) -> None:
        """Say that all is there; on disk when this returns."""
        write_private(self.result, result.line())

    def finished(self) -> Result | None:
        """What the app gave; None if it did not come to its end, or its files are not whole."""
        try:
            result = Result.model_validate_json(self.result.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        wanted = (
            (self.update, result.sha256),
            (self.app_state, result.state_sha256),
            (self.left, result.left_sha256),
        )
        is_whole = all(has_digest(path, sha256) for path, sha256 in wanted if sha256 is not None)
        return result if is_whole else None

    def progress(self) -> int | None:
        """From where a repeated run goes on: None is from the beginning.

        That is the `<n>` of the newest checkpoint named `epoch-<n>`, 0 where names say nothing.
        """
        names = [path.name for path in _walk(self.checkpoint) if not path.name.startswith(".")]
        epochs = [int(found[1]) for name in names if (found := _EPOCH.match(name))]
        return max(epochs, default=0) if names else None

    def size(self) -> int:
        """Bytes of all files in it."""
        return sum(_size(path) for path in _walk(self.path))

    def touched_at(self) -> float:
        with suppress(OSError):
            return max(path.stat().st_mtime for path in (self.path, self.checkpoint))
        return 0.0

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def prune(folders: Path, under_way: Collection[str]) -> None:
    """Remove what is too old, and then the oldest until the rest is small enough."""
    kept = [
        WorkFolder(path)
        for path in folders.glob("*")
        if path.is_dir() and path.name not in under_way
    ]
    room = LARGEST_TOGETHER
    for folder in sorted(kept, key=WorkFolder.touched_at, reverse=True):
        room -= folder.size()
        if room < 0 or folder.touched_at() < clock.machine() - KEPT_SECONDS:
            folder.remove()


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below; what goes away meanwhile is not there."""
    with suppress(OSError):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
