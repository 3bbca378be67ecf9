"""What a backup directory holds, and the file that says so.

FLOWERBED-BACKUP       a warning; who works on the directory holds its lock
objects/ab/abcd…       what lies in S3, by sha256; shared by one backup and the next
snapshot-…/            everything else of one backup
manifest.json          written last: names the snapshot, and the digest of every file in it
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowerbed.embedded.errors import BadInput, EmbeddedError
from flowerbed.embedded.layout import write_private

FORMAT = 1
MANIFEST = "manifest.json"
MARKER = "FLOWERBED-BACKUP"
OBJECTS = "objects"
SNAPSHOT = "snapshot-"

Report = Callable[[str, int, int], None]
"""Told of what, and how many of how many are done."""

_WARNING = """\
A backup of Flowerbed. It holds the stack's secrets: its certificate authority, the key that signs
work, and every password. Whoever can read it can act as the stack.
"""
_CHUNK = 1 << 20


class Damaged(EmbeddedError):
    """A file of a backup is not what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What a file's bytes are."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`file`: its rows as Postgres' COPY writes them, of these columns, gzipped."""

    name: str
    columns: tuple[str, ...]
    n_rows: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """One service's database. `migrations`: those that had been applied."""

    migrations: tuple[str, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`release`: of the code that made the backup. `taken_at`: of the cut, UTC.

    `n_missing`: objects that facts name and that S3 did not have, or had with other bytes.
    """

    format: int
    release: int
    taken_at: str
    snapshot: str
    databases: dict[str, Dump]
    n_submissions: int
    n_artifacts: int
    artifact_bytes: int
    n_missing: int
    has_objects: bool
    files: dict[str, Fact]

    @property
    def n_events(self) -> int:
        tables = (table for dump in self.databases.values() for table in dump.tables)
        return sum(table.n_rows for table in tables if table.name == "events")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_private(folder / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises: BadInput: there is no complete backup, or a later release made it."""
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        why = "was not finished" if (folder / MARKER).exists() else "is none"
        raise BadInput(f"{folder} holds no complete backup: it {why}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / MANIFEST} cannot be read: {error}") from error
    if content.get("format", 0) > FORMAT:
        raise BadInput(f"{folder} was written in format {content['format']}, by a later release")
    return _manifest(content)


def _manifest(content: dict[str, Any]) -> Manifest:
    databases = {
        service: Dump(
            migrations=tuple(dump["migrations"]),
            tables=tuple(
                Table(**{**table, "columns": tuple(table["columns"])}) for table in dump["tables"]
            ),
        )
        for service, dump in content.pop("databases").items()
    }
    files = {name: Fact(**fact) for name, fact in content.pop("files").items()}
    return Manifest(databases=databases, files=files, **content)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the directory a backup's, which only its owner enters, and work on it alone.

    Raises:
        BadInput: something else is in there, or another backup is under way.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise BadInput(f"{folder} holds something else than a backup")
        folder.chmod(0o700)
        if not (folder / MARKER).exists():
            write_private(folder / MARKER, _WARNING)
    except OSError as error:
        raise BadInput(f"{folder} cannot hold a backup: {error.strerror}") from error
    with (folder / MARKER).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"another backup into {folder} is under way") from None
        yield


def facts(root: Path, folder: Path) -> dict[str, Fact]:
    """Of every file below `folder`, by its path in `root`; on disk before this returns."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush(path)
            found[str(path.relative_to(root))] = fact(path)
        else:
            flush(path)
    flush(folder)
    return found


def fact(path: Path) -> Fact:
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
    return Fact(sha256=sha256.hexdigest(), size=size)


def flush(path: Path) -> None:
    """A power cut from here on does not take it back."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check(path: Path, wanted: Fact) -> None:
    """Raises: Damaged: the file is gone, or has other bytes."""
    try:
        found = fact(path)
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from error
    if found != wanted:
        raise Damaged(f"{path} is damaged: its digest is not that of the manifest")
