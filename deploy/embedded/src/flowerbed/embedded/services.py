"""Flowerbed's own services: the settings file of each, and how its process starts."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from flowerbed.embedded import probes
from flowerbed.embedded.caddy import client_socket, enrol_socket
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.issuers import as_settings, kept_issuers
from flowerbed.embedded.layout import write_private_json
from flowerbed.embedded.listening import listens
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.shape import base_of
from flowerbed.embedded.stack import BUCKET

SETTINGS_VARIABLE = "FLOWERBED_SETTINGS_FILE"
_S3_USERS = ("lease", "aggregator", "artifact")


def check_installed(services: tuple[str, ...]) -> None:
    """Raises: ComponentFailed: one of them is not installed."""
    for service in services:
        module = f"flowerbed.{service}"
        if find_spec(module) is None or find_spec(f"{module}.__main__") is None:
            raise ComponentFailed(service, f"there is no module {module}.__main__ to run")


def service_spec(setup: Setup, component: str) -> ChildSpec:
    """Of one replica of a service."""
    module = f"flowerbed.{base_of(component)}"
    write_private_json(setup.layout.settings(component), settings(setup, component))
    port = setup.ports[component]

    def probe(pid: int) -> None:
        if not listens(pid, port):
            raise NotReady(f"does not listen on port {port} yet")
        status, body = probes.http_status(port, "/readyz")
        if status != 200:
            raise NotReady(f"/readyz answers {status}: {body[:500].decode(errors='replace')}")

    return ChildSpec(
        name=component,
        kind="service",
        argv=(sys.executable, "-P", "-m", module),  # -P: nothing is imported from the directory
        address=f"http://{setup.address(component)}",
        probe=probe,
        log=setup.layout.log(component),
        directory=setup.layout.run,
        env={**os.environ, SETTINGS_VARIABLE: str(setup.layout.settings(component))},
        stop_seconds=15,
    )


def settings(setup: Setup, component: str) -> dict[str, object]:
    """What a replica reads at its start. Holds secrets: only ever written to its file."""
    credentials, service = setup.credentials, base_of(component)
    common: dict[str, object] = {
        "service": service,
        "database_host": "127.0.0.1",
        "database_port": int(setup.told("postgres")[0].rpartition(":")[2]),
        "database_name": service,
        "database_user": f"{service}_app",
        "database_password": credentials.postgres[f"{service}_app"],
        "reader_user": f"{service}_reader",
        "reader_password": credentials.postgres[f"{service}_reader"],
        "nats_url": ",".join(f"nats://{address}" for address in setup.told("nats")),
        "nats_user": service,
        "nats_password": credentials.nats[service],
        "http_host": "127.0.0.1",
        "http_port": setup.ports[component],
        "internal_token": credentials.internal_token,
    }
    return {**common, **_s3(setup, service), **_own(setup, component)}


def _s3(setup: Setup, service: str) -> dict[str, object]:
    if service not in _S3_USERS:
        return {}
    return {
        "s3_endpoint": f"http://{setup.told('s3')[0]}",
        "s3_access_key": setup.credentials.s3_access_key,
        "s3_secret_key": setup.credentials.s3_secret_key,
        "s3_bucket": BUCKET,
    }


def _own(setup: Setup, component: str) -> dict[str, object]:
    secrets = setup.layout.secrets
    match base_of(component):
        case "lease":
            return {
                "client_socket": client_socket(setup, component),
                "enrol_socket": enrol_socket(setup, component),
                "client_url": f"https://{setup.told('client_door')[0]}",
                "enrol_url": f"https://{setup.address('enrol_door')}",
                "ca_certificate_file": str(secrets / "ca.pem"),
                "ca_key_file": str(secrets / "ca.key"),
                "signing_key_file": str(secrets / "signing.key"),
                "server_certificate_file": str(secrets / "server.pem"),
            }
        case "aggregator":
            own = {"spool_directory": str(_spool(setup, component))}
            return {**own, "lease_url": _urls(setup, "lease"), **_superlink(setup)}
        case "gateway":
            others = ("lease", "aggregator", "artifact", "orchestrator")
            urls = {f"{other}_url": _urls(setup, other) for other in others}
            issuers = as_settings(kept_issuers(setup.layout))
            return {"api_token": setup.credentials.api_token, "issuers": issuers, **urls}
        case _:
            return {}


def _urls(setup: Setup, service: str) -> list[str]:
    return [f"http://{setup.address(replica)}" for replica in setup.replicas(service)]


def _superlink(setup: Setup) -> dict[str, object]:
    if not setup.shape.superlink:
        return {}
    return {
        "superlink_address": f"localhost:{setup.ports['superlink']}",
        "superlink_ca_file": str(setup.layout.secrets / "ca.pem"),
    }


def _spool(setup: Setup, component: str) -> Path:
    spool = setup.layout.own(setup.layout.spool, component)
    spool.mkdir(mode=0o700, exist_ok=True)
    return spool
