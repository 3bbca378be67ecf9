"""Each virtual client's part of the data: a folder of its own, or a number to make one from."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.contracts.apps import BUILTIN
from flowerbed.contracts.datasets import ABOUT, DEFAULT_TASK, reference_of
from flowerbed.contracts.ids import flower_number
from flowerbed.contracts.simulation import Simulation, client_name
from flowerbed.contracts.values import DatasetRef, Scalar

READ_DATA = frozenset((f"{BUILTIN}hospital", f"{BUILTIN}vision"))
"""Apps of ours that make no partitions themselves."""


@dataclass(frozen=True, slots=True)
class Partition:
    """`folder`: the data of one site; None where the app makes partition `number` of `of`."""

    number: int
    of: int
    dataset: DatasetRef
    folder: Path | None = None

    @property
    def client_id(self) -> str:
        return client_name(self.number)

    @property
    def node_id(self) -> int:
        return flower_number(self.client_id)

    @property
    def node_config(self) -> dict[str, Scalar]:
        """As Flower's own simulation has it, and as a site has it."""
        config: dict[str, Scalar] = {"partition-id": self.number, "num-partitions": self.of}
        return config if self.folder is None else {**config, "data-path": str(self.folder)}


def partitions(simulation: Simulation, app: str) -> tuple[Partition, ...]:
    """One for each client, the same ones each time.

    Raises:
        CannotSimulate: the data are not there, or the app needs some and none are named.
    """
    n = simulation.clients
    if simulation.data is None:
        if app in READ_DATA:
            raise CannotSimulate(
                "dataset-gone",
                f"{app} reads a dataset: name a folder with one folder a site, simulation.data",
            )
        return tuple(
            Partition(number, n, reference_of("partition", _numbered(number, n)))
            for number in range(n)
        )
    folders = _sites(Path(simulation.data))
    found = [(folder, _reference(folder)) for folder in folders]
    dealt = (found[number % len(found)] for number in range(n))
    return tuple(
        Partition(number, n, dataset, folder) for number, (folder, dataset) in enumerate(dealt)
    )


def _numbered(number: int, of: int) -> dict[str, str]:
    """What stands for files that are nowhere."""
    return {"partition": hashlib.sha256(f"{number} of {of}".encode()).hexdigest()}


def _sites(data: Path) -> list[Path]:
    try:
        found = sorted(one for one in data.iterdir() if one.is_dir() and one.name[0] != ".")
    except OSError as error:
        raise CannotSimulate("dataset-gone", f"{data}: {error.strerror}") from error
    if not found:
        raise CannotSimulate("dataset-gone", f"{data} holds no folder of a site")
    return found


def _reference(folder: Path) -> DatasetRef:
    try:
        about = folder / ABOUT
        document = json.loads(about.read_bytes()) if about.exists() else {}
        task = document.get("task", DEFAULT_TASK) if isinstance(document, dict) else DEFAULT_TASK
        files = {
            path.relative_to(folder).as_posix(): _digest(path)
            for path in folder.rglob("*")
            if path.is_file()
        }
        if not files:
            raise CannotSimulate("dataset-gone", f"{folder} holds no file")
        return reference_of(task, files)
    except (OSError, ValueError) as error:
        raise CannotSimulate("dataset-unreadable", f"{folder}: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
