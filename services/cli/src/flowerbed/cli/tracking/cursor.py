"""How far a tracker was told: a small file that one process at a time moves on."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.cli.api import CommandFailed
from flowerbed.cli.output import BAD_INPUT
from flowerbed.embedded.layout import write_private_json


@dataclass(slots=True)
class Cursor:
    """`position`: of the feed. `rounds`: the last one told, by federation that is not over.

    `begun`: the federation and round that is being told.
    """

    path: Path
    position: int = 0
    rounds: dict[str, int] = field(default_factory=dict)
    begun: tuple[str, int] | None = None

    def save(self) -> None:
        content = {"position": self.position, "rounds": self.rounds, "begun": self.begun}
        write_private_json(self.path, content)


def default_path(*of: str | None) -> Path:
    """One for each tracker, gateway and choice of federations."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
    return Path(home) / "flowerbed" / f"track-{digest}.json"


@contextmanager
def kept(path: Path) -> Iterator[Cursor]:
    """Raises: CommandFailed: another tracker is at it, or it is no cursor."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield _read(path)
    except BlockingIOError as error:
        raise CommandFailed(f"another `flowerbed track` moves {path}", exit_code=BAD_INPUT) from (
            error
        )
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", exit_code=BAD_INPUT) from error


def _read(path: Path) -> Cursor:
    try:
        found = json.loads(path.read_text())
        begun = found["begun"] and (str(found["begun"][0]), int(found["begun"][1]))
        return Cursor(path, int(found["position"]), dict(found["rounds"]), begun)
    except FileNotFoundError:
        return Cursor(path)
    except (ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"{path} is no cursor of a tracker", exit_code=BAD_INPUT) from error
