"""Where a client keeps what it must remember: the state directory and what is in it.

identity.json  client.pem     who we are; both are written whole or not at all
enrolling-*.pem               the key pair of an enrolment that is under way
agent.json  agent.lock        what the agent was started with; held by the one agent that runs
keeper.lock                   held by its keeper, and what that says of itself
status.json  client.log       what the agent says of itself
journal.sqlite3               finished work
digests.json                  digests of dataset files, by size, times and inode
policy.json                   what the site's operator allows: see `site_policy`
apps/<sha256>.fab             bundles of apps, and each unpacked for a lease in a folder
results/  bases/<lease_id>/   files of finished work; checkpoints to start from
states/                       what apps remember between orders, and what updates left out
supernodes/<lease>-<epoch>/   keys and logs of SuperNodes: see `node_files`
work/<digest>/                work under way: see `work_folder`
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerbed.runner import clock
from flowerbed.runner.errors import BadInput

STATE_DIR_VARIABLE = "FLOWERBED_CLIENT_DIR"
BASES_KEPT_SECONDS = 24 * 3600.0


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$FLOWERBED_CLIENT_DIR`, or `flowerbed/client` in the user's data home."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get(STATE_DIR_VARIABLE):
        return Path(chosen)
    data_home = environ.get("XDG_DATA_HOME")
    home = Path(data_home) if data_home else Path.home() / ".local" / "share"
    return home / "flowerbed" / "client"


@dataclass(frozen=True, slots=True)
class StateDir:
    root: Path

    @classmethod
    def at(cls, chosen: Path | None = None) -> "StateDir":
        return cls((chosen or default_state_dir()).expanduser().absolute())

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def client_pem(self) -> Path:
        return self.root / "client.pem"

    @property
    def settings(self) -> Path:
        return self.root / "agent.json"

    @property
    def lock(self) -> Path:
        return self.root / "agent.lock"

    @property
    def keeper_lock(self) -> Path:
        return self.root / "keeper.lock"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def log(self) -> Path:
        return self.root / "client.log"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite3"

    @property
    def digests(self) -> Path:
        return self.root / "digests.json"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def states(self) -> Path:
        return self.root / "states"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def policy(self) -> Path:
        return self.root / "policy.json"

    @property
    def apps(self) -> Path:
        return self.root / "apps"

    @property
    def supernodes(self) -> Path:
        return self.root / "supernodes"

    def unpacked(self, lease_id: str, epoch: int) -> Path:
        return self.apps / f"{lease_id}-{epoch}"

    def bases(self, lease_id: str) -> Path:
        return self.root / "bases" / lease_id

    def make(self) -> None:
        """Make the directories, for this user alone.

        Raises:
            BadInput: the place cannot hold them, or belongs to someone else.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.root.stat().st_uid != os.geteuid():
                raise BadInput(f"{self.root} belongs to another user")
            self.root.chmod(0o700)
            for folder in (self.results, self.states, self.work):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.root} cannot hold a client: {error.strerror}") from error

    def clear_leftovers(self) -> None:
        """Remove base checkpoints and SuperNodes that nobody has used for long, and apps that were
        unpacked for leases; call before any work begins."""
        for left in self.apps.glob("*/"):
            shutil.rmtree(left, ignore_errors=True)
        old = clock.machine() - BASES_KEPT_SECONDS
        for base in (self.root / "bases").glob("*/*"):
            with suppress(OSError):
                if base.stat().st_mtime < old:
                    base.unlink()
        for node in self.supernodes.glob("*"):
            if node.stat().st_mtime < old:
                shutil.rmtree(node, ignore_errors=True)


def write_private(path: Path, content: str | bytes, *, is_durable: bool = True) -> None:
    """Replace a file at once with one that only we can read; if durable, on disk on return."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if is_durable:
            sync_directory(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: object) -> None:
    write_private(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The document, or None where there is none that can be read."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def has_digest(path: Path, sha256: str) -> bool:
    """True if the file is there, whole: a crash may have left one that is not."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
