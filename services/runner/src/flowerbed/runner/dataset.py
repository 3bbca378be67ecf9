"""The site's own dataset: a folder, and the digest and label by which others may know it.

The digest is sha256 over the sorted lines `<relative name> <sha256 of the file>\n` of every regular
file. Files are read again only when their size, times or inode have changed.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from flowerbed.contracts.datasets import ABOUT, DEFAULT_TASK, reference_of
from flowerbed.contracts.values import DatasetRef
from flowerbed.runner.errors import BadInput
from flowerbed.runner.state import read_json, write_json

URI_PREFIX = "local:"
_TASK = re.compile(r"[a-z0-9-]{1,60}")

_Stamp: TypeAlias = tuple[int, int, int, int]


class DatasetUnreadable(BadInput):
    """The folder or a file in it cannot be read. Holds paths: for the site's own eyes."""

    code = "dataset-unreadable"


class DatasetGone(DatasetUnreadable):
    """Nothing is there: removed, renamed, not mounted."""

    code = "dataset-gone"


class Dataset:
    """`task`: of its own dataset.json once that was read; until then what a person chose."""

    def __init__(self, folder: Path, task: str | None, digests: Path | None = None) -> None:
        self.folder = folder
        self.task = task or DEFAULT_TASK
        self._chosen_task = task
        self._digests_file = digests
        self._digests = _load(digests)

    @classmethod
    def open(cls, uri: str, task: str | None = None, digests: Path | None = None) -> "Dataset":
        """Look at the folder that `local:/path` names.

        Raises:
            BadInput: it is not there, holds no file, or its task is not a plain name.
        """
        dataset = cls.named(uri, task, digests)
        dataset.look()
        return dataset

    @classmethod
    def named(cls, uri: str, task: str | None = None, digests: Path | None = None) -> "Dataset":
        """The same, whether or not the folder is there now.

        Raises:
            BadInput: the name is none.
        """
        if not uri.startswith(URI_PREFIX) or uri == URI_PREFIX:
            raise BadInput(f"a dataset is named local:/path/to/folder, not {uri!r}")
        return cls(Path(uri.removeprefix(URI_PREFIX)).expanduser().absolute(), task, digests)

    def look(self) -> None:
        """Raises: BadInput: it is not there, holds no file, or its task is not a plain name."""
        if not self.folder.is_dir():
            raise DatasetGone(f"{self.folder} is not a folder")
        self.task = _task(self.folder, self._chosen_task)
        if not any(True for _ in self.files()):
            raise DatasetGone(f"{self.folder} holds no file")

    @property
    def uri(self) -> str:
        """What a manifest's `dataset_uris` may call it."""
        return URI_PREFIX + self.task

    def files(self) -> Iterator[Path]:
        """Every regular file, links to files followed.

        Raises:
            DatasetUnreadable: something cannot be read, or is a link to a folder, whose files
                the digest would not cover.
        """
        for parent, folders, names in os.walk(self.folder, onerror=_raise_unreadable):
            for name in folders:
                if (Path(parent) / name).is_symlink():
                    raise DatasetUnreadable(f"{Path(parent) / name} is a link to a folder")
            for name in names:
                path = Path(parent) / name
                if path.is_file():
                    yield path
                elif path.is_symlink():
                    raise DatasetUnreadable(f"{path} is a link to nothing")

    def reference(self, *, keep: bool = True) -> DatasetRef:
        """The dataset as it is now; reads what has changed since the last time, and `keep`s that.

        Raises:
            BadInput: a file cannot be read, none is left, or its task is not a plain name.
        """
        self.look()
        current: dict[str, tuple[_Stamp, str]] = {}
        for path in self.files():
            name = path.relative_to(self.folder).as_posix()
            current[name] = self._digest(name, path)
        if keep:
            self._keep(current)
        return reference_of(self.task, {name: digest for name, (_, digest) in current.items()})

    def names(self) -> set[str]:
        """Names that must not leave the site, as of the last digest."""
        parts = {part for name in self._digests for part in Path(name).parts}
        return parts | set(self._digests) | {self.folder.name}

    def _digest(self, name: str, path: Path) -> tuple[_Stamp, str]:
        try:
            stat = path.stat()
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            known = self._digests.get(name)
            if known is not None and known[0] == stamp:
                return known
            with path.open("rb") as file:
                return stamp, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(path, error) from error

    def _keep(self, current: dict[str, tuple[_Stamp, str]]) -> None:
        if current == self._digests:
            return
        self._digests = current
        if self._digests_file is not None:
            entries = {name: [*stamp, digest] for name, (stamp, digest) in current.items()}
            with suppress(OSError):  # a full disk: they are read again next time
                write_json(self._digests_file, entries)


def _load(digests: Path | None) -> dict[str, tuple[_Stamp, str]]:
    entries = read_json(digests) if digests is not None else None
    if entries is None:
        return {}
    return {name: ((a, b, c, d), digest) for name, (a, b, c, d, digest) in entries.items()}


def _task(folder: Path, chosen: str | None) -> str:
    """`dataset.json` knows best what its data are for; then what the person says."""
    about = folder / ABOUT
    try:
        document = json.loads(about.read_bytes())
    except FileNotFoundError:
        document = {}
    except OSError as error:
        raise _unreadable(about, error) from error
    except ValueError as error:
        raise DatasetUnreadable(f"{about} is not JSON: {error}") from error
    named = document.get("task") if isinstance(document, dict) else None
    task = named or chosen or DEFAULT_TASK
    if not isinstance(task, str) or not _TASK.fullmatch(task):
        raise BadInput(f"task {task!r}: 1 to 60 lower-case letters, digits and '-'")
    return task


def _unreadable(path: object, error: OSError) -> DatasetUnreadable:
    kind = DatasetGone if isinstance(error, FileNotFoundError) else DatasetUnreadable
    return kind(f"{path} cannot be read: {error.strerror}")


def _raise_unreadable(error: OSError) -> None:
    raise _unreadable(error.filename, error) from error
