"""The apps that ship with the product: where they are, what they default to, which code they are.

A control-plane service asks for the hash of an app's code, so nothing here imports torch or flwr
until an app is loaded.
"""

import hashlib
import importlib
import sys
import tomllib
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

HERE = Path(__file__).parent
SOURCES = ("*.py", "pyproject.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinApp:
    name: str
    client_app: str
    server_app: str
    initial_arrays: str

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def default_config(self) -> dict[str, bool | float | int | str]:
        """The app's own defaults, as its `[tool.flwr.app.config]` has them."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())
        config: dict[str, bool | float | int | str] = project["tool"]["flwr"]["app"]["config"]
        return config


def _builtin(name: str) -> BuiltinApp:
    package = f"flowerbed.flower_apps.{name}"
    return BuiltinApp(
        name=name,
        client_app=f"{package}.client_app:app",
        server_app=f"{package}.server_app:app",
        initial_arrays=f"{package}.task:initial_arrays",
    )


BUILTIN: dict[str, BuiltinApp] = {
    name: _builtin(name) for name in ("hospital", "vision", "synthetic")
}


def find(name: str) -> BuiltinApp:
    try:
        return BUILTIN[name]
    except KeyError:
        raise KeyError(f"no app is called {name!r}; there are {', '.join(BUILTIN)}") from None


def load(reference: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, attributes = reference.partition(":")
    return attrgetter(attributes)(importlib.import_module(module))


def load_from(folder: Path, reference: str) -> Any:
    """The same, of an app that lies in a folder: its modules are found there first."""
    sys.path.insert(0, str(folder))
    return load(reference)


def load_client_app(name: str) -> "ClientApp":
    app: ClientApp = load(find(name).client_app)
    return app


def bridge() -> dict[str, bytes]:
    """The modules that run an app over a SuperLink; they travel in the run's bundle."""
    return {name: (HERE / name).read_bytes() for name in ("bridge.py", "seeded.py")}


def code_hash(name: str) -> str:
    """Name an app's code: sha256 over its source files, by path and content."""
    return hash_folder(find(name).folder)


def hash_folder(folder: Path) -> str:
    files = {
        path.relative_to(folder).as_posix(): path
        for pattern in SOURCES
        for path in folder.rglob(pattern)
    }
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        # The lengths keep a name's end apart from its content's beginning.
        digest.update(f"{len(name)} {len(content)} {name}\n".encode())
        digest.update(content)
    return digest.hexdigest()
