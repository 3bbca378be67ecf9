"""The files that a whole ServerApp has left in its folder: which, and their bytes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowerbed.cli.api import Api
from flowerbed.cli.checkpoints import fetch
from flowerbed.cli.failing import CommandFailed
from flowerbed.cli.output import BAD_INPUT

if TYPE_CHECKING:
    from flowerbed.artifact.blobs import Blobs

_ENDED = "fl.serverapp.completed"
File = Mapping[str, Any]


def left(api: Api, federation_id: str) -> list[dict[str, Any]]:
    """`name`, `uri`, `sha256` and `size` of each, in the order of their names.

    Raises:
        CommandFailed: no ServerApp has ended there.
    """
    status = api.federation(federation_id)["status"]
    ended = [one["data"] for one in api.history(federation_id) if one["type"] == _ENDED]
    if not ended:
        raise CommandFailed(
            f"federation {federation_id} is {status}, and no ServerApp has ended in it: only one"
            " that runs as a whole (server_app: whole) leaves files"
        )
    return [{"name": one["name"], **one["artifact"]} for one in ended[-1]["files"]]


def fetched(blobs: "Blobs", files: Sequence[File], to: Path) -> Iterator[Path]:
    """Write them below that folder, each once its sha256 is right.

    Raises:
        CommandFailed: a name leads out of it, or the folder cannot be written.
    """
    root = to.resolve()
    places = [root / one["name"] for one in files]
    for place, one in zip(places, files, strict=True):
        if root not in place.resolve().parents:
            raise CommandFailed(f"{one['name']!r} would lie outside of {to}: nothing is fetched")
    for place, one in zip(places, files, strict=True):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandFailed(f"--to {to}: {error.strerror}", exit_code=BAD_INPUT) from error
        fetch(blobs, one["uri"], one["sha256"], place)
        yield place
