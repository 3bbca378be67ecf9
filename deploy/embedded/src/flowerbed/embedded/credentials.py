"""Every generated name and password of a stack, in one file that only its owner reads."""

import json
import secrets
from dataclasses import asdict, dataclass, field

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.errors import NotRunning
from flowerbed.embedded.layout import Layout, write_private, write_private_json

ROLES = ("owner", "app", "reader")
NATS_USERS = (*SERVICES, "submitter", "admin", "system", "cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Made once at the first start and kept; a later version adds what is new to it."""

    stack_id: str
    postgres: dict[str, str] = field(repr=False)
    """Password by role: `postgres` and `<service>_<owner|app|reader>`."""
    nats: dict[str, str] = field(repr=False)
    s3_access_key: str
    s3_secret_key: str = field(repr=False)
    s3_signing_keys: dict[str, str] = field(repr=False)
    """What SeaweedFS' parts sign their calls to each other with."""
    internal_token: str = field(repr=False)
    api_token: str = field(repr=False)

    def values(self) -> tuple[str, ...]:
        """Everything that must never be seen in a log, an argument or an environment."""
        return (
            *self.postgres.values(), *self.nats.values(), *self.s3_signing_keys.values(),
            self.s3_secret_key, self.internal_token, self.api_token,
        )  # fmt: skip


def ensure_credentials(layout: Layout) -> Credentials:
    """Read the stack's credentials; make what is missing."""
    path = layout.secrets / "credentials.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    roles = ("postgres", *(f"{service}_{role}" for service in SERVICES for role in ROLES))
    credentials = Credentials(
        stack_id=stored.get("stack_id") or secrets.token_hex(8),
        postgres=_complete(stored.get("postgres"), roles),
        nats=_complete(stored.get("nats"), NATS_USERS),
        s3_access_key=stored.get("s3_access_key") or secrets.token_hex(10).upper(),
        s3_secret_key=stored.get("s3_secret_key") or _password(),
        s3_signing_keys=_complete(
            stored.get("s3_signing_keys"), ("write", "read", "filer_write", "filer_read")
        ),
        internal_token=stored.get("internal_token") or _password(),
        api_token=stored.get("api_token") or _password(),
    )
    if asdict(credentials) != stored:
        write_private_json(path, asdict(credentials))
    write_private(layout.api_token, credentials.api_token + "\n")
    return credentials


def read_credentials(layout: Layout) -> Credentials:
    """Raises: NotRunning: no stack was ever started there."""
    try:
        return Credentials(**json.loads((layout.secrets / "credentials.json").read_text()))
    except FileNotFoundError:
        raise NotRunning(f"no stack was ever started in {layout.root}") from None


def _complete(stored: dict[str, str] | None, names: tuple[str, ...]) -> dict[str, str]:
    return {name: (stored or {}).get(name) or _password() for name in names}


def _password() -> str:
    return secrets.token_urlsafe(32)
