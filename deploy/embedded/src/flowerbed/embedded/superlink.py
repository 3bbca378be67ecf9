"""Flower's SuperLink, and the SuperExec that starts ServerApps for it: where a stack wants them.

Both are stock. The SuperLink listens on the loopback interface alone, for everybody who is on this
machine: its Control API knows no accounts. What is published of it is in `caddy`.
"""

import http.client
import secrets
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.layout import write_private, write_private_json
from flowerbed.embedded.listening import listens
from flowerbed.embedded.probes import TIMEOUT, NotReady
from flowerbed.embedded.setup import Setup, program
from flowerbed.embedded.stack import BUCKET

RELAY_SETTINGS = "FLOWERBED_RELAY_SETTINGS"
"""Names the file of what our ServerApp must know; secrets among it."""


def superlink_specs(setup: Setup) -> tuple[ChildSpec, ...]:
    """None where the stack wants no SuperLink."""
    return (_superlink(setup), _superexec(setup)) if setup.shape.superlink else ()


def _superlink(setup: Setup) -> ChildSpec:
    home, pki, port = _home(setup), setup.layout.secrets, setup.ports["superlink"]
    return ChildSpec(
        name="superlink",
        kind="server",
        argv=(
            program("flower-superlink"), "--host", "127.0.0.1", "--port", str(port),
            "--database", str(home / "superlink.sqlite3"), "--isolation", "process",
            "--enable-supernode-auth", "--superexec-auth-secret-file", str(_secret(setup)),
            "--ssl-ca-certfile", str(pki / "ca.pem"),
            "--ssl-certfile", str(pki / "server.pem"),
            "--ssl-keyfile", str(pki / "server.key"),
            "--disable-runtime-dependency-installation",
        ),
        address=f"https://{setup.address('superlink')}",
        probe=_probe(port, pki / "ca.pem"),
        log=setup.layout.log("superlink"),
        directory=home,
        env=_env(setup),
    )  # fmt: skip


def _superexec(setup: Setup) -> ChildSpec:
    relay, port = setup.layout.run / "relay.json", setup.ports["superlink"]
    write_private_json(relay, relay_settings(setup))
    return ChildSpec(
        name="superexec",
        kind="server",
        argv=(
            program("flower-superexec"), "--runtime-api-address", f"localhost:{port}",
            "--root-certificates", str(setup.layout.secrets / "ca.pem"),
            "--superexec-auth-secret-file", str(_secret(setup)),
        ),
        address="",
        probe=lambda pid: None,  # it listens nowhere
        log=setup.layout.log("superexec"),
        directory=_home(setup),
        env={**_env(setup), RELAY_SETTINGS: str(relay)},
        # What its ServerApps have unpacked there; they have ended with the last one.
        before=lambda: shutil.rmtree(_home(setup) / "apps", ignore_errors=True),
    )  # fmt: skip


def relay_settings(setup: Setup) -> dict[str, object]:
    """What a ServerApp of ours is told. Holds secrets: only ever written to its file."""
    credentials = setup.credentials
    return {
        "lease_url": [f"http://{setup.address(one)}" for one in setup.replicas("lease")],
        "aggregator_url": [f"http://{setup.address(one)}" for one in setup.replicas("aggregator")],
        "internal_token": credentials.internal_token,
        "s3_endpoint": f"http://{setup.told('s3')[0]}",
        "s3_access_key": credentials.s3_access_key,
        "s3_secret_key": credentials.s3_secret_key,
        "s3_bucket": BUCKET,
        "log": str(setup.layout.log("relay")),
    }


def _env(setup: Setup) -> dict[str, str]:
    """`PATH`: a SuperExec starts `flwr-serverapp` by its name."""
    env = setup.server_env()
    path = f"{Path(program('flower-superexec')).parent}:{env.get('PATH', '')}"
    return {
        **env,
        "PATH": path,
        "FLWR_HOME": str(_home(setup)),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
    }


def _home(setup: Setup) -> Path:
    home = setup.layout.root / "superlink"
    home.mkdir(mode=0o700, exist_ok=True)
    return home


def _secret(setup: Setup) -> Path:
    """What a SuperExec shows before it is given a ServerApp to start."""
    path = setup.layout.secrets / "superexec.secret"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path


def _probe(port: int, ca_file: Path) -> Callable[[int], None]:
    def probe(pid: int) -> None:
        if not listens(pid, port):
            raise NotReady(f"does not listen on port {port} yet")
        is_healthy(port, ca_file)

    return probe


def is_healthy(port: int, ca_file: Path) -> None:
    """Raises: NotReady: it is not, or it is no SuperLink that our own CA has certified."""
    context = ssl.create_default_context(cafile=str(ca_file))
    connection = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", "/health")
        if (status := connection.getresponse().status) != 200:
            raise NotReady(f"/health answers {status}")
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"port {port} does not answer: {error}") from error
    finally:
        connection.close()
