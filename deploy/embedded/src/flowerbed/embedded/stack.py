"""How other code reaches a stack on this machine: addresses and credentials, read from its state.

>>> stack = Stack()
>>> stack.gateway_url
'http://127.0.0.1:18123'
"""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.credentials import ROLES, Credentials, read_credentials
from flowerbed.embedded.errors import BadInput, NotRunning
from flowerbed.embedded.layout import Layout
from flowerbed.embedded.ports import Ports, read_ports
from flowerbed.embedded.shape import Shape, base_of, numbered, read_shape

BUCKET = "flowerbed"


class S3Access(NamedTuple):
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


class NatsAccess(NamedTuple):
    url: str
    user: str
    password: str


class Stack:
    """A stack's facts. It need not run for them, but must have been started once."""

    def __init__(self, state_dir: Path | None = None) -> None:
        self.layout = Layout.at(state_dir)

    @property
    def state_dir(self) -> Path:
        return self.layout.root

    @property
    def gateway_url(self) -> str:
        """One address for all its replicas."""
        return f"http://127.0.0.1:{self.port('gateway_door')}"

    @property
    def api_token(self) -> str:
        """What people and the CLI show to the gateway."""
        return self._credentials.api_token

    @property
    def internal_token(self) -> str:
        return self._credentials.internal_token

    @property
    def api_token_file(self) -> Path:
        return self.layout.api_token

    @property
    def ca_file(self) -> Path:
        return self.layout.secrets / "ca.pem"

    @property
    def client_url(self) -> str:
        """The door for enrolled clients: mTLS. As clients are told it, maybe through a link."""
        port, *_ = self.shape.links.get("client_door") or (self.port("client_door"),)
        return f"https://127.0.0.1:{port}"

    @property
    def enrol_url(self) -> str:
        """The door for those who have no certificate yet."""
        return f"https://127.0.0.1:{self.port('enrol_door')}"

    @property
    def s3(self) -> S3Access:
        return S3Access(
            f"http://127.0.0.1:{self.port('s3')}",
            self._credentials.s3_access_key,
            self._credentials.s3_secret_key,
            BUCKET,
        )

    @property
    def nats_url(self) -> str:
        """Of each server, with a comma between them."""
        return ",".join(
            f"nats://127.0.0.1:{self.port(node)}"
            for node in numbered("nats", self.shape.nats_nodes)
        )

    @property
    def nats_submitter(self) -> NatsAccess:
        """Who may publish FederationSpecs and nothing else."""
        return self.nats_user("submitter")

    def nats_user(self, user: str) -> NatsAccess:
        password = self._credentials.nats.get(user)
        if password is None:
            raise BadInput(f"no NATS user is called {user!r}")
        return NatsAccess(self.nats_url, user, password)

    @property
    def prometheus_url(self) -> str:
        """Where the stack was started with observability."""
        return f"http://127.0.0.1:{self.port('prometheus')}"

    def service_url(self, component: str) -> str:
        """Of one replica: `lease` is the first, `lease-2` the second."""
        _known(base_of(component))
        return f"http://127.0.0.1:{self.port(component)}"

    def postgres_dsn(self, service: str, role: str = "reader") -> str:
        """Of a service's database, as its `owner`, `app` or `reader`."""
        if role not in ROLES:
            raise BadInput(f"role {role!r} is none of {', '.join(ROLES)}")
        user = f"{_known(service)}_{role}"
        password = quote(self._credentials.postgres[user], safe="")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port('postgres')}/{service}"

    def port(self, name: str) -> int:
        try:
            return self._ports[name]
        except KeyError:
            raise NotRunning(f"no stack was ever started in {self.state_dir}") from None

    @property
    def shape(self) -> Shape:
        return read_shape(self.layout)

    @cached_property
    def _credentials(self) -> Credentials:
        return read_credentials(self.layout)

    @property
    def _ports(self) -> Ports:
        return read_ports(self.layout)  # not cached: a port may be replaced by a later `up`


def _known(service: str) -> str:
    if service not in SERVICES:
        raise BadInput(f"service {service!r} is none of {', '.join(SERVICES)}")
    return service
