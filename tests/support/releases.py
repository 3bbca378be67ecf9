"""The release before this one, unpacked from its archive and run as it was.

Its source comes first on the path of every process that it starts, so its modules are found there
and everything foreign where it always is. `check` says whether that is so.
"""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowerbed.contracts.topology import SERVICES

ARCHIVES = Path(__file__).resolve().parents[1] / "golden" / "releases"
PARTS = ("contracts", "events", *SERVICES, "runner", "flower_apps", "cli", "embedded")

_FILES = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""

# What `up` would have started but for the services: those are run one by one, to be replaced.
_SERVERS = """
import asyncio, json, sys
from pathlib import Path
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.control import up
from flowerbed.embedded.credentials import ensure_credentials
from flowerbed.embedded.databases import migrate_databases
from flowerbed.embedded.services import service_spec
from flowerbed.embedded.setup import Setup

layout = up(Path(sys.argv[1]), ()).layout
ports = json.loads((layout.run / "ports.json").read_text())
setup = Setup(layout, ensure_credentials(layout), ports)
asyncio.run(migrate_databases(setup, SERVICES))
for service in SERVICES:
    service_spec(setup, service)  # writes its settings
"""


def archived(version: str) -> dict[str, str]:
    """Every text of a release, by its path."""
    with tarfile.open(ARCHIVES / f"flowerbed-{version}.tar.xz") as archive:
        files = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


@dataclass(frozen=True, slots=True)
class Release:
    version: str
    root: Path

    @classmethod
    def unpacked(cls, version: str, folder: Path) -> "Release":
        root = folder / f"flowerbed-{version}"
        with tarfile.open(ARCHIVES / f"flowerbed-{version}.tar.xz") as archive:
            archive.extractall(root, filter="data")
        release = cls(version, root)
        release.check()
        return release

    @property
    def environment(self) -> dict[str, str]:
        """For a process that is to run this release's code."""
        sources = sorted(str(path.parent) for path in self.root.glob("**/src/flowerbed"))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}

    def check(self) -> None:
        """Raises: AssertionError: a part of flowerbed would come from somewhere else."""
        modules = [f"flowerbed.{part}" for part in PARTS]
        found = json.loads(self._python("-P", "-c", _FILES, *modules))
        strays = {file for file in found.values() if not file.startswith(f"{self.root}/")}
        assert strays == set(), f"not of release {self.version}: {strays}"

    def flowerbed(self, *arguments: str) -> str:
        """The command line of that release."""
        return self._python("-P", "-c", "from flowerbed.cli.main import main; main()", *arguments)

    def start_servers(self, state_dir: Path) -> None:
        """Its supervisor with the servers, its migrations, and the settings of its services."""
        self._python("-P", "-c", _SERVERS, str(state_dir))

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def environment_of(release: Release) -> Iterator[None]:
    """What is started meanwhile runs that release."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = release.environment["PYTHONPATH"]
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
