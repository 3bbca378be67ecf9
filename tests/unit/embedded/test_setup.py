"""Credentials, ports and keys are made once, kept, and completed."""

import json
import socket
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded import ports as ports_module
from flowerbed.embedded.credentials import ensure_credentials, read_credentials
from flowerbed.embedded.databases import scram_verifier
from flowerbed.embedded.errors import BadInput, ComponentFailed, EmbeddedError, NotRunning
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.nats_server import render as render_nats
from flowerbed.embedded.pki import SERVER_LIFETIME, ensure_pki
from flowerbed.embedded.ports import ensure_ports, is_free, port_names, read_ports
from flowerbed.embedded.services import check_installed, settings
from flowerbed.embedded.setup import Setup, program
from flowerbed.embedded.shape import Shape
from flowerbed.embedded.stack import Stack


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "state")
    layout.make()
    return layout


@pytest.fixture
def setup(layout: Layout) -> Setup:
    return Setup.prepare(layout)


def test_credentials_are_made_once(layout: Layout) -> None:
    first = ensure_credentials(layout)

    assert ensure_credentials(layout) == first == read_credentials(layout)
    assert layout.api_token.read_text().strip() == first.api_token


def test_no_two_credentials_are_the_same(layout: Layout) -> None:
    values = ensure_credentials(layout).values()
    assert len(set(values)) == len(values) > 20


def test_credential_that_a_later_version_needs_is_added(layout: Layout) -> None:
    first = ensure_credentials(layout)
    path = layout.secrets / "credentials.json"
    stored = json.loads(path.read_text())
    del stored["nats"]["gateway"]
    path.write_text(json.dumps(stored))

    second = ensure_credentials(layout)

    assert second.nats["gateway"] != first.nats["gateway"]
    assert second.nats["lease"] == first.nats["lease"]


def test_ports_are_kept(layout: Layout) -> None:
    first = ensure_ports(layout)

    assert ensure_ports(layout) == first == read_ports(layout)
    assert set(first) == set(port_names(Shape()))
    assert len(set(first.values())) == len(first)


def test_ports_lie_outside_those_of_outgoing_connections(layout: Layout) -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ensure_ports(layout).values()) < lowest


def test_taken_port_is_replaced_and_no_other(layout: Layout) -> None:
    first = ensure_ports(layout)
    with socket.create_server(("127.0.0.1", first["nats"])):
        assert not is_free(first["nats"])
        second = ensure_ports(layout)

    assert {name for name in first if first[name] != second[name]} == {"nats"}


def test_a_port_whose_socket_another_user_has_left_is_replaced(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SeaweedFS cannot remove that, and would never be ready."""
    monkeypatch.setattr(ports_module, "SEAWEEDFS_SOCKETS", tmp_path)
    first = ensure_ports(layout)
    for part, name in (("s3", "s3_grpc"), ("volume", "s3_volume_grpc")):
        (tmp_path / f"seaweedfs-{part}-grpc-{first[name]}.sock").touch()
    mine = tmp_path.stat().st_uid

    monkeypatch.setattr("os.geteuid", lambda: mine)
    assert ensure_ports(layout) == first, "its own it removes"
    monkeypatch.setattr("os.geteuid", lambda: mine + 1)
    second = ensure_ports(layout)

    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"s3_grpc", "s3_volume_grpc"}


def test_ports_that_belong_together_move_together(layout: Layout) -> None:
    first = ensure_ports(layout)
    assert first["s3_admin_grpc"] == first["s3_admin"] + 10_000
    with socket.create_server(("127.0.0.1", first["s3_admin_grpc"])):
        second = ensure_ports(layout)

    assert second["s3_admin_grpc"] == second["s3_admin"] + 10_000
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"s3_admin", "s3_admin_grpc"}


def test_no_free_port_is_an_error_of_one_line(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_module, "is_free", lambda port: False)
    with pytest.raises(EmbeddedError, match="no free port between"):
        ensure_ports(layout)


def test_unknown_range_of_outgoing_ports_is_the_usual_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ports_module, "_RANGE_FILE", tmp_path / "none")
    assert max(ensure_ports(layout).values()) < 32768


def certificate(layout: Layout, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((layout.secrets / f"{name}.pem").read_bytes())


def test_server_certificate_names_this_machine(layout: Layout) -> None:
    ensure_pki(layout)
    server, ca = certificate(layout, "server"), certificate(layout, "ca")

    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    server.verify_directly_issued_by(ca)
    assert ca.not_valid_after_utc - datetime.now(UTC) > timedelta(days=3649)


def test_keys_and_certificates_are_made_once(layout: Layout) -> None:
    ensure_pki(layout)
    before = {path.name: path.read_bytes() for path in layout.secrets.iterdir()}

    ensure_pki(layout)

    assert {path.name: path.read_bytes() for path in layout.secrets.iterdir()} == before


def test_server_certificate_is_renewed_a_month_before_its_end(layout: Layout) -> None:
    start = datetime.now(UTC)
    ensure_pki(layout, start)
    first, ca = certificate(layout, "server"), certificate(layout, "ca")

    ensure_pki(layout, start + SERVER_LIFETIME - timedelta(days=31))
    assert certificate(layout, "server") == first
    ensure_pki(layout, start + SERVER_LIFETIME - timedelta(days=29))

    assert certificate(layout, "server") != first
    assert certificate(layout, "ca") == ca


def test_certificate_without_its_key_is_made_again(layout: Layout) -> None:
    ensure_pki(layout)
    first = certificate(layout, "server")
    (layout.secrets / "server.key").write_bytes((layout.secrets / "ca.key").read_bytes())

    ensure_pki(layout)

    assert certificate(layout, "server") != first


def test_settings_of_each_service_name_only_its_own_users(setup: Setup) -> None:
    for service in SERVICES:
        found = settings(setup, service)
        assert found["database_user"] == f"{service}_app"
        assert found["reader_user"] == f"{service}_reader"
        assert found["nats_user"] == service
        others = {
            password
            for user, password in setup.credentials.nats.items()
            if user != service
        }  # fmt: skip
        assert not others & {str(value) for value in found.values()}


def test_only_those_who_use_s3_get_its_key(setup: Setup) -> None:
    users = {name for name in SERVICES if "s3_secret_key" in settings(setup, name)}
    assert users == {"lease", "aggregator", "artifact"}


def test_only_the_gateway_gets_the_api_token(setup: Setup) -> None:
    token = setup.credentials.api_token
    assert [name for name in SERVICES if token in settings(setup, name).values()] == ["gateway"]


def test_nats_is_durable_and_local(setup: Setup) -> None:
    lines = dict(line.split(": ", 1) for line in render_nats(setup).splitlines())

    assert json.loads(lines["jetstream"])["sync_interval"] == "always"
    assert json.loads(lines["listen"]) == f"127.0.0.1:{setup.ports['nats']}"
    users = {user["user"] for user in json.loads(lines["accounts"])["FLOWERBED"]["users"]}
    assert users == {*SERVICES, "submitter", "admin"}


def test_servers_see_nothing_of_our_environment(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody's")
    assert "AWS_SECRET_ACCESS_KEY" not in setup.server_env()


def test_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(EmbeddedError, match="no-such-server is not installed"):
        program("no-such-server")


def test_service_that_is_not_installed_is_named() -> None:
    with pytest.raises(ComponentFailed, match=r"there is no module flowerbed\.greenhouse\."):
        check_installed(("greenhouse",))


def test_verifier_is_what_the_server_keeps() -> None:
    """The example of RFC 7677, whose client proof follows from the stored key."""
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    verifier = scram_verifier("pencil", salt)

    assert verifier == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_stack_tells_where_things_are(setup: Setup) -> None:
    stack = Stack(setup.layout.root)

    assert stack.gateway_url == f"http://127.0.0.1:{setup.ports['gateway_door']}"
    assert stack.client_url.startswith("https://127.0.0.1:")
    assert stack.enrol_url != stack.client_url
    assert stack.api_token == setup.credentials.api_token
    assert stack.internal_token == setup.credentials.internal_token
    assert stack.nats_submitter.user == "submitter"
    assert stack.s3.bucket == "flowerbed"
    assert stack.postgres_dsn("lease").startswith("postgresql://lease_reader:")


def test_stack_refuses_names_that_do_not_exist(setup: Setup) -> None:
    stack = Stack(setup.layout.root)
    with pytest.raises(BadInput, match="role 'admin' is none of"):
        stack.postgres_dsn("lease", role="admin")
    with pytest.raises(BadInput, match="service 'greenhouse' is none of"):
        stack.service_url("greenhouse")
    with pytest.raises(BadInput, match="no NATS user is called 'root'"):
        stack.nats_user("root")


def test_stack_that_never_was_says_so(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "nowhere")
    with pytest.raises(NotRunning, match="no stack was ever started"):
        _ = stack.gateway_url
    with pytest.raises(NotRunning, match="no stack was ever started"):
        _ = stack.api_token
