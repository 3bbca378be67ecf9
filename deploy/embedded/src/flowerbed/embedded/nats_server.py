"""NATS with JetStream: one account, a user a service with the permissions of the topology."""

import json

from flowerbed.contracts.topology import inbox_prefix, permissions
from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.credentials import Credentials
from flowerbed.embedded.layout import write_private
from flowerbed.embedded.setup import Setup, program


def nats_spec(setup: Setup) -> ChildSpec:
    layout, port = setup.layout, setup.ports["nats"]
    configuration = layout.secrets / "nats.conf"
    write_private(configuration, render(setup))
    password = setup.credentials.nats["admin"]
    return ChildSpec(
        name="nats",
        kind="server",
        argv=(program("nats-server"), "-c", str(configuration)),
        address=setup.address("nats"),
        probe=lambda pid: probes.nats(port, server_name_of(setup.credentials), "admin", password),
        log=layout.log("nats"),
        directory=layout.nats,
        env=setup.server_env(),
    )


def server_name_of(credentials: Credentials) -> str:
    return f"flowerbed-{credentials.stack_id}"


def render(setup: Setup) -> str:
    """The configuration; NATS reads JSON values in its own format."""
    users = [
        _user(setup, name, *_subjects(name))
        for name in setup.credentials.nats
        if name not in ("system",)
    ]
    system = {"user": "system", "password": setup.credentials.nats["system"]}
    settings = {
        "server_name": server_name_of(setup.credentials),
        "listen": setup.address("nats"),
        "jetstream": {"store_dir": str(setup.layout.nats), "sync_interval": "always"},
        "accounts": {
            "FLOWERBED": {"jetstream": "enabled", "users": users},
            "SYSTEM": {"users": [system]},
        },
        "system_account": "SYSTEM",
        "max_payload": 1024 * 1024,
        "logtime": True,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())


def _user(
    setup: Setup, name: str, publish: tuple[str, ...], subscribe: tuple[str, ...]
) -> dict[str, object]:
    return {
        "user": name,
        "password": setup.credentials.nats[name],
        "permissions": {"publish": {"allow": publish}, "subscribe": {"allow": subscribe}},
    }


def _subjects(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`admin` declares streams and durables; it publishes no fact."""
    if name == "admin":
        return ("$JS.API.>", "$JS.ACK.>"), (f"{inbox_prefix('admin')}.>",)
    allowed = permissions(name)
    return allowed.publish, allowed.subscribe
