"""NATS with JetStream: one account, a user a service with the permissions of the topology.

One server, or three that keep each stream three times.
"""

import json

from flowerbed.contracts.topology import inbox_prefix, permissions
from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.credentials import Credentials
from flowerbed.embedded.layout import write_private
from flowerbed.embedded.setup import Setup, program
from flowerbed.embedded.shape import Shape, numbered

_NO_SERVICES = ("system", "cluster")


def nats_specs(setup: Setup) -> tuple[ChildSpec, ...]:
    return tuple(_spec(setup, node) for node in nats_nodes(setup.shape))


def nats_nodes(shape: Shape) -> tuple[str, ...]:
    return numbered("nats", shape.nats_nodes)


def _spec(setup: Setup, node: str) -> ChildSpec:
    layout, port = setup.layout, setup.ports[node]
    configuration = layout.secrets / f"{node}.conf"
    write_private(configuration, render(setup, node))
    store = layout.own(layout.nats, node)
    store.mkdir(mode=0o700, exist_ok=True)
    name, password = server_name_of(setup.credentials, node), setup.credentials.nats["admin"]
    return ChildSpec(
        name=node,
        kind="server",
        argv=(program("nats-server"), "-c", str(configuration)),
        address=setup.address(node),
        probe=lambda pid: probes.nats(port, name, "admin", password),
        stuck=lambda: probes.nats_stuck(port, setup.credentials.nats["system"]),
        log=layout.log(node),
        directory=store,
        env=setup.server_env(),
    )


def server_name_of(credentials: Credentials, node: str = "nats") -> str:
    return f"flowerbed-{credentials.stack_id}{node.removeprefix('nats')}"


def render(setup: Setup, node: str = "nats") -> str:
    """The configuration; NATS reads JSON values in its own format."""
    users = [
        _user(setup, name, *_subjects(name))
        for name in setup.credentials.nats
        if name not in _NO_SERVICES
    ]
    system = {"user": "system", "password": setup.credentials.nats["system"]}
    store = setup.layout.own(setup.layout.nats, node)
    settings = {
        "server_name": server_name_of(setup.credentials, node),
        "listen": setup.address(node),
        "jetstream": {"store_dir": str(store), "sync_interval": "always"},
        "accounts": {
            "FLOWERBED": {"jetstream": "enabled", "users": users},
            "SYSTEM": {"users": [system]},
        },
        "system_account": "SYSTEM",
        "max_payload": 1024 * 1024,
        # What a process that stands still has asked for stands no longer than its roles.
        "ping_interval": "2s",
        "ping_max": 1,
        "logtime": True,
        **_cluster(setup, node),
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())


def _cluster(setup: Setup, node: str) -> dict[str, object]:
    if setup.shape.nats_nodes == 1:
        return {}
    password = setup.credentials.nats["cluster"]
    others = [other for other in nats_nodes(setup.shape) if other != node]
    routes = [
        f"nats-route://cluster:{password}@{setup.address(f'{other}_route')}" for other in others
    ]
    cluster = {
        "name": server_name_of(setup.credentials),
        "listen": setup.address(f"{node}_route"),
        "authorization": {"user": "cluster", "password": password, "timeout": 2},
        "routes": routes,
        # Clients know the servers from their settings, maybe by the ports of links.
        "no_advertise": True,
    }
    return {"cluster": cluster}


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
