"""Flowerbed's own services: the settings file of each, and how its process starts."""

import os
import sys
from importlib.util import find_spec

from flowerbed.embedded import probes
from flowerbed.embedded.caddy import client_socket, enrol_socket
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.layout import write_private_json
from flowerbed.embedded.listening import listens
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.stack import BUCKET

SETTINGS_VARIABLE = "FLOWERBED_SETTINGS_FILE"
_S3_USERS = ("lease", "aggregator", "artifact")


def check_installed(services: tuple[str, ...]) -> None:
    """Raises: ComponentFailed: one of them is not installed."""
    for service in services:
        module = f"flowerbed.{service}"
        if find_spec(module) is None or find_spec(f"{module}.__main__") is None:
            raise ComponentFailed(service, f"there is no module {module}.__main__ to run")


def service_spec(setup: Setup, service: str) -> ChildSpec:
    module = f"flowerbed.{service}"
    write_private_json(setup.layout.settings(service), settings(setup, service))
    port = setup.ports[service]

    def probe(pid: int) -> None:
        if not listens(pid, port):
            raise NotReady(f"does not listen on port {port} yet")
        status, body = probes.http_status(port, "/readyz")
        if status != 200:
            raise NotReady(f"/readyz answers {status}: {body[:500].decode(errors='replace')}")

    return ChildSpec(
        name=service,
        kind="service",
        argv=(sys.executable, "-P", "-m", module),  # -P: nothing is imported from the directory
        address=f"http://{setup.address(service)}",
        probe=probe,
        log=setup.layout.log(service),
        directory=setup.layout.run,
        env={**os.environ, SETTINGS_VARIABLE: str(setup.layout.settings(service))},
        stop_seconds=15,
    )


def settings(setup: Setup, service: str) -> dict[str, object]:
    """What the service reads at its start. Holds secrets: only ever written to its file."""
    credentials, ports = setup.credentials, setup.ports
    common: dict[str, object] = {
        "service": service,
        "database_host": "127.0.0.1",
        "database_port": ports["postgres"],
        "database_name": service,
        "database_user": f"{service}_app",
        "database_password": credentials.postgres[f"{service}_app"],
        "reader_user": f"{service}_reader",
        "reader_password": credentials.postgres[f"{service}_reader"],
        "nats_url": f"nats://{setup.address('nats')}",
        "nats_user": service,
        "nats_password": credentials.nats[service],
        "http_host": "127.0.0.1",
        "http_port": ports[service],
        "internal_token": credentials.internal_token,
    }
    return {**common, **_s3(setup, service), **_own(setup, service)}


def _s3(setup: Setup, service: str) -> dict[str, object]:
    if service not in _S3_USERS:
        return {}
    return {
        "s3_endpoint": f"http://{setup.address('s3')}",
        "s3_access_key": setup.credentials.s3_access_key,
        "s3_secret_key": setup.credentials.s3_secret_key,
        "s3_bucket": BUCKET,
    }


def _own(setup: Setup, service: str) -> dict[str, object]:
    secrets = setup.layout.secrets
    match service:
        case "lease":
            return {
                "client_socket": client_socket(setup),
                "enrol_socket": enrol_socket(setup),
                "client_url": f"https://{setup.address('client_door')}",
                "enrol_url": f"https://{setup.address('enrol_door')}",
                "ca_certificate_file": str(secrets / "ca.pem"),
                "ca_key_file": str(secrets / "ca.key"),
                "signing_key_file": str(secrets / "signing.key"),
            }
        case "aggregator":
            return {"spool_directory": str(setup.layout.spool)}
        case "gateway":
            others = ("lease", "aggregator", "artifact", "orchestrator")
            urls = {f"{other}_url": f"http://{setup.address(other)}" for other in others}
            return {"api_token": setup.credentials.api_token, **urls}
        case _:
            return {}
