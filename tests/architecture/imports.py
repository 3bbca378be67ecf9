"""Who imports what, read from the source: nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {
    "contracts": ROOT / "contracts",
    "events": ROOT / "events",
    "lease": ROOT / "services/lease",
    "orchestrator": ROOT / "services/round-orchestrator",
    "aggregator": ROOT / "services/aggregator-bridge",
    "artifact": ROOT / "services/artifact",
    "gateway": ROOT / "services/gateway",
    "runner": ROOT / "services/runner",
    "flower_apps": ROOT / "services/flower-apps",
    "cli": ROOT / "services/cli",
    "embedded": ROOT / "deploy/embedded",
}
"""Each part of the namespace and the folder of its project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """`module` is absolute; `name` is what a `from … import` takes of it. `file`: in flowerbed/."""

    part: str
    file: str
    module: str
    name: str = ""

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def target(self) -> str:
        """The part of flowerbed that is imported, or ""."""
        full = f"{self.module}.{self.name}".split(".")
        return full[1] if full[0] == "flowerbed" and len(full) > 1 else ""


def sources(part: str) -> list[Path]:
    return sorted((PROJECTS[part] / "src").rglob("*.py"))


def imports() -> Iterator[Import]:
    for part in PROJECTS:
        package = PROJECTS[part] / "src" / "flowerbed"
        for path in sources(part):
            yield from _of_file(part, path, path.relative_to(package))


def _of_file(part: str, path: Path, file: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(part=part, file=str(file), module=alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = ("flowerbed", *file.parts[: len(file.parts) - node.level])
                module = ".".join((*base, module)).rstrip(".")
            for alias in node.names:
                yield Import(part=part, file=str(file), module=module, name=alias.name)
