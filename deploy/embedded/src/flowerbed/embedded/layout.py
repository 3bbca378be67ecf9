"""Where everything of one stack lies: the state directory and what is in it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowerbed.embedded.errors import BadInput

STATE_DIR_VARIABLE = "FLOWERBED_STATE_DIR"
LONGEST_SOCKET_PATH = 107
"""What the kernel takes as the path of a Unix socket, in bytes."""
LONGEST_SOCKET_NAME = len("/lease-8-clients.sock")
SHARED_ROOT = Path("/var/lib/flowerbed")
"""For what Postgres' own user must reach when root runs the stack."""


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`$FLOWERBED_STATE_DIR`, or root's /var/lib/flowerbed, or the user's data home."""
    environ = os.environ if environ is None else environ
    if chosen := environ.get(STATE_DIR_VARIABLE):
        return Path(chosen)
    if os.geteuid() == 0:
        return SHARED_ROOT
    data_home = environ.get("XDG_DATA_HOME")
    return (Path(data_home) if data_home else Path.home() / ".local" / "share") / "flowerbed"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one stack. Makes nothing by itself; `make` does."""

    root: Path

    @classmethod
    def at(cls, state_dir: Path | None = None) -> "Layout":
        return cls((state_dir or default_state_dir()).expanduser().absolute())

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def s3(self) -> Path:
        return self.root / "s3"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def spool(self) -> Path:
        """What the aggregator fetched and can fetch again."""
        return self.root / "spool"

    def own(self, directory: Path, component: str) -> Path:
        """A component's own of such directories: `nats/` of the first, `nats-2/` of the second."""
        _, dash, number = component.partition("-")
        return directory.with_name(f"{directory.name}{dash}{number}")

    @property
    def record(self) -> Path:
        return self.run / "stack.json"

    @property
    def shape(self) -> Path:
        return self.run / "shape.json"

    @property
    def issuers(self) -> Path:
        return self.run / "issuers.json"

    @property
    def lock(self) -> Path:
        return self.run / "supervisor.lock"

    @property
    def api_token(self) -> Path:
        return self.secrets / "api_token"

    @property
    def digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]

    @property
    def sockets(self) -> Path:
        """Unix sockets lie in `run`, or elsewhere when that path is too long for the kernel."""
        if len(os.fsencode(self.run)) + LONGEST_SOCKET_NAME <= LONGEST_SOCKET_PATH:
            return self.run
        return Path(tempfile.gettempdir()) / f"flowerbed-{os.geteuid()}-{self.digest}"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def settings(self, component: str) -> Path:
        return self.secrets / f"{component}.json"

    def make(self) -> None:
        """Make the directories: the root may be entered by others, nothing in it may be read."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            for directory in (
                self.secrets, self.run, self.logs, self.nats, self.s3, self.spool, self.sockets,
            ):  # fmt: skip
                directory.mkdir(mode=0o700, exist_ok=True)
                _refuse_a_strangers(directory)
                directory.chmod(0o700)
        except OSError as error:
            raise BadInput(f"{self.root} cannot hold a stack: {error.strerror}") from error


def _refuse_a_strangers(directory: Path) -> None:
    """Someone else may have made it first, in /tmp above all."""
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise BadInput(f"{directory} belongs to another user")


def write_private(path: Path, content: str | bytes, *, lasting: bool = True) -> None:
    """Replace a file at once with one that only we can read; `lasting` survives a power cut."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_private_json(path: Path, content: Mapping[str, object], *, lasting: bool = True) -> None:
    write_private(path, json.dumps(content, indent=2) + "\n", lasting=lasting)
