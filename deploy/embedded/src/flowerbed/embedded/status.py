"""How a running stack does, asked of each process now: alive, ready, behind by how much."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flowerbed.embedded import probes
from flowerbed.embedded.credentials import Credentials, read_credentials
from flowerbed.embedded.errors import NotRunning
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.listening import listens
from flowerbed.embedded.nats_server import server_name_of
from flowerbed.embedded.observers import is_ready, n_firing
from flowerbed.embedded.ports import Ports, read_ports
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.record import ComponentRecord, Kind, StackState, read_record
from flowerbed.embedded.shape import base_of
from flowerbed.embedded.superlink import is_healthy


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    name: str
    kind: Kind
    pid: int | None
    address: str
    ready: bool
    detail: str = ""
    """Why it is not ready."""
    lags: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    state: StackState
    state_dir: str
    supervisor_pid: int
    since: str
    components: tuple[ComponentStatus, ...]

    @property
    def ready(self) -> bool:
        return self.state == "running" and all(item.ready for item in self.components)


def read_status(layout: Layout) -> StackStatus:
    """Raises: NotRunning: no supervisor runs there."""
    record = read_record(layout)
    if record is None:
        raise NotRunning(f"no stack was ever started in {layout.root}")
    if not record.is_supervised():
        raise NotRunning(f"the stack in {layout.root} is not running")
    credentials, ports = read_credentials(layout), read_ports(layout)
    with ThreadPoolExecutor(max(1, len(record.components))) as pool:
        asked = pool.map(lambda item: _ask(layout, credentials, ports, item), record.components)
        components = tuple(asked)
    return StackStatus(
        state=record.state,
        state_dir=str(layout.root),
        supervisor_pid=record.supervisor.pid,
        since=record.since,
        components=components,
    )


def _ask(
    layout: Layout, credentials: Credentials, ports: Ports, item: ComponentRecord
) -> ComponentStatus:
    lags: dict[str, float] = {}
    detail = ""
    if item.process is None or not item.process.is_alive():
        detail = item.state if item.process is None else "has just ended"
    else:
        try:
            lags = _probe(layout, credentials, ports, item)()
        except (NotReady, OSError, ValueError) as error:
            detail = str(error)
    return ComponentStatus(
        name=item.name,
        kind=item.kind,
        pid=item.process.pid if item.process else None,
        address=item.address,
        ready=not detail,
        detail=detail,
        lags=lags,
        restarts=item.restarts,
        since=item.since,
    )


def _probe(
    layout: Layout, credentials: Credentials, ports: Ports, item: ComponentRecord
) -> Callable[[], dict[str, float]]:
    def check() -> dict[str, float]:
        port = ports.get(item.name, 0)
        match base_of(item.name):
            case "postgres":
                probes.postgres(port)
            case "nats":
                name, password = server_name_of(credentials, item.name), credentials.nats["admin"]
                probes.nats(port, name, "admin", password)
            case "s3":
                probes.s3(port, credentials.s3_access_key, credentials.s3_secret_key)
            case "caddy":
                for door in ("client_door", "enrol_door"):
                    probes.tls(ports[door], layout.secrets / "ca.pem")
                if item.process is None or not listens(item.process.pid, ports["gateway_door"]):
                    raise NotReady("the gateway's address is not served")
            case "prometheus":
                is_ready(port)
                return {"alerts_firing": n_firing(port)}
            case "alertmanager":
                is_ready(port)
            case "superlink":
                is_healthy(port, layout.secrets / "ca.pem")
            case "superexec":
                pass  # it listens nowhere; that it is alive was looked at
            case _:
                return _service_lags(port)
        return {}

    return check


def _service_lags(port: int) -> dict[str, float]:
    status, body = probes.http_status(port, "/readyz")
    answer = json.loads(body or b"{}")
    if status != 200:
        raise NotReady(_why(answer) or f"/readyz answers {status}")
    lags = answer.get("lags") or {}
    return {name: value for name, value in lags.items() if isinstance(value, int | float)}


def _why(answer: dict[str, object]) -> str:
    """The checks of a /readyz body that failed, and the tasks that do."""
    found: dict[str, object] = {}
    for part in ("checks", "failing"):
        if isinstance(values := answer.get(part), dict):
            found |= values
    return "; ".join(f"{name}: {value}" for name, value in found.items() if value != "ok")
