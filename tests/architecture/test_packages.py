"""One namespace, many projects; and a service loads no more than it needs."""

import subprocess
import sys

import pytest

from tests.architecture.imports import PROJECTS, ROOT, sources


@pytest.mark.parametrize("part", PROJECTS)
def test_a_project_adds_one_package_to_the_namespace(part: str) -> None:
    namespace = PROJECTS[part] / "src" / "flowerbed"
    assert [path.name for path in namespace.iterdir() if path.suffix == ".py"] == []
    packages = [path for path in namespace.iterdir() if (path / "__init__.py").is_file()]
    assert [path.name for path in packages] == [part]


def test_the_namespace_itself_has_no_init() -> None:
    roots = [path for path in ROOT.rglob("src/flowerbed/__init__.py") if ".venv" not in path.parts]
    assert roots == []


@pytest.mark.parametrize("part", PROJECTS)
def test_every_module_says_in_its_first_line_what_it_is_for(part: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(part)
        if not path.read_text().startswith(('"""', 'r"""', "#!"))
    ]
    assert silent == []


HEAVY = ("torch", "flwr", "ray", "sklearn")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flowerbed.contracts.catalogue", (*HEAVY, "nats", "asyncpg", "fastapi", "boto3")),
        ("flowerbed.lease.__main__", (*HEAVY, "faststream", "flowerbed.orchestrator")),
        ("flowerbed.orchestrator.__main__", (*HEAVY, "boto3", "flowerbed.lease")),
        ("flowerbed.artifact.__main__", (*HEAVY, "faststream")),
        ("flowerbed.gateway.__main__", (*HEAVY, "boto3", "faststream")),
        ("flowerbed.aggregator.__main__", (*HEAVY, "faststream")),
        ("flowerbed.lease.leases", (*HEAVY, "asyncpg", "nats", "fastapi")),
        ("flowerbed.orchestrator.decider", (*HEAVY, "asyncpg", "nats", "fastapi", "faststream")),
    ],
)
def test_importing_a_module_loads_nothing_that_it_does_not_need(
    module: str, absent: tuple[str, ...]
) -> None:
    program = (
        f"import sys, {module}\nprint(*[name for name in {absent!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []
