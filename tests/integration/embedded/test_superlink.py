"""Flower's SuperLink in a stack: only what a SuperNode asks for leads in, with a certificate."""

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from flwr.proto.control_pb2 import ListRunsRequest, ListRunsResponse
from flwr.supercore.control import ControlHttpClient

from flowerbed.embedded.caddy import FLEET_ROUTES
from flowerbed.embedded.control import down, up
from flowerbed.embedded.credentials import read_credentials
from flowerbed.embedded.record import read_record
from flowerbed.embedded.stack import Stack
from flowerbed.embedded.testing import remove
from tests.integration.embedded.test_doors import issue, listening, visitor

PRIVATE = (
    "/v1/control/list-runs", "/v1/control/start-run", "/v1/control/register-node",
    "/v1/runtime/acquire-task", "/v1/fleet/register-node", "/v1/fleet/unregister-node",
    "/v1/fleet/../control/list-runs", "/v1/fleet/%2e%2e/control/list-runs",
    "/v1//control/list-runs", "/v1/fleet/get-run/../../control/list-runs",
    "/docs", "/openapi.json", "/health", "/v1/responses",
)  # fmt: skip
PROTOBUF = {"content-type": "application/protobuf"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("superlink") / "state"
    try:
        stack = up(state, services=(), superlink=True)
        with listening(stack.layout.sockets / "lease-clients.sock"):
            yield stack
    finally:
        down(state)
        remove(state)


@pytest.fixture(scope="module")
def client(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with visitor(stack, issue(stack.layout, tmp_path_factory.mktemp("client"))) as client:
        yield client


@pytest.mark.parametrize("route", FLEET_ROUTES)
def test_a_certificate_leads_to_what_a_supernode_asks_for(
    stack: Stack, client: httpx.Client, route: str
) -> None:
    answer = client.post(f"{stack.client_url}/v1/fleet/{route}", content=b"", headers=PROTOBUF)
    assert answer.status_code == 401  # Flower's own: no signature of a SuperNode
    assert answer.json()["detail"] == "Invalid SuperNode authentication"


@pytest.mark.parametrize("path", PRIVATE)
def test_no_certificate_leads_to_flowers_other_routes(
    stack: Stack, client: httpx.Client, path: str
) -> None:
    """What is asked for is not the SuperLink's: the lease service, or nobody, is asked instead."""
    for method in ("GET", "POST"):
        answer = client.request(method, stack.client_url + path, content=b"", headers=PROTOBUF)
        assert answer.status_code == 404 or is_lease_service(answer)
    assert is_lease_service(client.get(f"{stack.client_url}/v1/fleet/get-run"))


@pytest.mark.parametrize("path", [f"/v1/fleet/{FLEET_ROUTES[0]}", *PRIVATE])
def test_without_a_certificate_nothing_answers(stack: Stack, path: str) -> None:
    with visitor(stack) as stranger, pytest.raises(httpx.TransportError):
        stranger.post(stack.client_url + path, content=b"", headers=PROTOBUF)
    with visitor(stack) as stranger:
        assert stranger.post(stack.enrol_url + path, content=b"").status_code == 404


def test_it_listens_on_the_loopback_interface_alone(stack: Stack) -> None:
    process = superlink(stack)
    addresses = {one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}
    ca = stack.ca_file.read_bytes()
    control = ControlHttpClient.from_server_address(
        f"localhost:{stack.port('superlink')}",
        insecure=False,
        root_certificates=ca,
        interceptors=[],
    )
    answer: ListRunsResponse = control.ListRuns(ListRunsRequest())
    assert not answer.run_dict


def test_its_secrets_are_in_files_that_only_we_read(stack: Stack) -> None:
    credentials, layout = read_credentials(stack.layout), stack.layout
    told = Path(layout.run / "relay.json")
    assert credentials.internal_token in told.read_text()
    secret = layout.secrets / "superexec.secret"
    for path in (told, secret):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record = read_record(layout)
    assert record is not None
    for one in record.components:
        assert one.process is not None
        process = psutil.Process(one.process.pid)
        seen = " ".join((*process.cmdline(), *process.environ().values()))
        assert not [value for value in (*credentials.values(), secret.read_text()) if value in seen]


def is_lease_service(answer: httpx.Response) -> bool:
    """What stands for it here tells the headers that it was sent."""
    return any(name.lower() == "client-cert" for name, _ in answer.json())


def superlink(stack: Stack) -> psutil.Process:
    record = read_record(stack.layout)
    assert record is not None
    (one,) = (item for item in record.components if item.name == "superlink")
    assert one.process is not None
    return psutil.Process(one.process.pid)
