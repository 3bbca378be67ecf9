"""One real stack and four real hospitals for all end-to-end tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerbed.cli.api import Api
from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.testing import running_stack
from flowerbed.events.failpoints import VARIABLE
from scripts.prepare_data import prepare
from tests.support.collector import collector
from tests.support.field import FAILPOINT, Field, hospitals

N_LINES = 15
"""How much of each service's log stands beside a test that failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    """What the services complained about last, with a test that failed."""
    report: Any = yield
    fields = [one for one in getattr(item, "funcargs", {}).values() if isinstance(one, Field)]
    if report.failed and fields:
        for log in sorted((fields[0].stack.state_dir / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            said = [line[:400] for line in lines if "WARNING" in line or "ERROR" in line]
            if said:
                report.sections.append((f"{log.name}, last warnings", "\n".join(said[-N_LINES:])))
    return report  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flowerbed-e2e-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def bare_field(scratch: Path) -> Iterator[Field]:
    """The stack alone. Its services look for failpoints, and send their spans to a collector:
    one as its own settings say, the others as the standard variables do. Specs may name another."""
    patch = pytest.MonkeyPatch.context()
    with collector() as traces, collector() as theirs, patch as environment:
        environment.setenv(VARIABLE, str(FAILPOINT))
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.http_url)
        environment.setenv("FLOWERBED_LEASE_OTLP_ENDPOINT", traces.http_url)
        environment.setenv("FLOWERBED_LEASE_OTLP_PROTOCOL", "http/protobuf")
        for service in SERVICES:
            environment.setenv(f"FLOWERBED_{service.upper()}_OTLP_ALLOWED", theirs.http_url)
        with running_stack(scratch / "stack") as stack:
            environment.undo()
            api = Api(stack.gateway_url, stack.api_token)
            yield Field(stack, api, traces=traces, theirs=theirs)


@pytest.fixture(scope="session")
def field(bare_field: Field, scratch: Path) -> Iterator[Field]:
    """The stack and four hospitals of tenant acme, tagged `hospital`."""
    described = prepare("hospital", scratch / "data", 7)
    names = [site["name"] for site in described["sites"]]
    yield from hospitals(bare_field, scratch / "data", scratch / "clients", names)
