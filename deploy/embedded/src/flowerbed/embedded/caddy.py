"""Caddy in front of the replicas: the clients' doors, where TLS ends, and the gateway's address.

Only these paths lead inside. A replica that died costs a request another try elsewhere, one that
does not answer (paused, say) is found by a health check within two seconds.
"""

from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.layout import write_private
from flowerbed.embedded.listening import listens
from flowerbed.embedded.probes import NotReady
from flowerbed.embedded.setup import Setup, program

CADDYFILE = """\
{{
    admin off
    auto_https off
    persist_config off
    grace_period 3s
    default_bind 127.0.0.1
    log {{
        level WARN
    }}
    # A client that names an address instead of a host sends no SNI. Each port has one site and one
    # policy, so there is none that a host name in the request could slip past.
    servers {{
        strict_sni_host insecure_off
    }}
}}

# How a request finds its replica.
{balancing}
# Clients that are enrolled: no certificate of ours, no connection.
https://:{client_port} {{
    tls "{secrets}/server.pem" "{secrets}/server.key" {{
        client_auth {{
            mode require_and_verify
            trust_pool file "{secrets}/ca.pem"
        }}
    }}
{superlink}    @open path /v1/* /.well-known/jwks.json
    handle @open {{
        request_body {{
            max_size 1MB
        }}
        @poll path /v1/leases/poll /v1/leases/*/work/next
        reverse_proxy @poll {client_sockets} {{
            header_up Client-Cert ":{{tls_client_certificate_der_base64}}:"
            import poll
        }}
        reverse_proxy {client_sockets} {{
            header_up Client-Cert ":{{tls_client_certificate_der_base64}}:"
            import call
        }}
    }}
    handle {{
        respond 404
    }}
}}

# Those that have no certificate yet, with an invite.
https://:{enrol_port} {{
    tls "{secrets}/server.pem" "{secrets}/server.key"
    @open path /v1/enrol /ca.pem
    handle @open {{
        request_body {{
            max_size 64KB
        }}
        reverse_proxy {enrol_sockets} {{
            header_up -Client-Cert
            import enrol
        }}
    }}
    handle {{
        respond 404
    }}
}}

# People and programs, to the gateway.
http://:{gateway_port} {{
    # These ask other services, for as long as those need.
    @long path /artifacts/*/verify /dead-letters*
    reverse_proxy @long {gateways} {{
        import long
    }}
    @read method GET HEAD
    reverse_proxy @read {gateways} {{
        import read
    }}
    reverse_proxy {gateways} {{
        import command
    }}
    handle_errors {{
        header Content-Type application/problem+json
        header Retry-After 2
        respond `{{"type":"about:blank","title":"Service Unavailable","status":503,\
"code":"unavailable","detail":"no replica of the gateway answered"}}` 503
    }}
}}
"""

SUPERLINK = """\
    # Of Flower's SuperLink what a SuperNode that is registered asks for, and nothing else.
    @fleet {{
        method POST
        path {routes}
    }}
    handle @fleet {{
        request_body {{
            max_size 64MB
        }}
        reverse_proxy https://127.0.0.1:{port} {{
            header_up -Client-Cert
            lb_try_duration {seconds}s
            lb_try_interval 100ms
            transport http {{
                dial_timeout 1s
                tls_server_name localhost
                tls_trust_pool file "{secrets}/ca.pem"
            }}
        }}
    }}
"""
FLEET_ROUTES = (
    "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
    "get-run", "get-fab", "push-object", "pull-object", "confirm-message-received",
)  # fmt: skip

TRY_SECONDS = 10
"""How long a request looks for a replica that takes it."""
POLL_SECONDS = 60
"""A client's longest wait is 50 s."""
CALL_SECONDS = 6
READ_SECONDS = 5
COMMAND_SECONDS = 20
_READ = "method GET HEAD"
_SAFE = (_READ, "header Idempotency-Key *")
_SMALL = "header_regexp Content-Length ^[0-9]{1,6}$"
_TINY = "header_regexp Content-Length ^[0-9]{1,4}$"
"""Within the door's limit: what is above it fails at every replica, and must not be tried on."""


def client_socket(setup: Setup, component: str) -> str:
    return str(setup.layout.sockets / f"{component}-clients.sock")


def enrol_socket(setup: Setup, component: str) -> str:
    return str(setup.layout.sockets / f"{component}-enrol.sock")


def caddy_spec(setup: Setup) -> ChildSpec:
    layout = setup.layout
    configuration = layout.run / "Caddyfile"
    write_private(configuration, render(setup))
    doors, gateway = (
        (setup.ports["client_door"], setup.ports["enrol_door"]),
        setup.ports["gateway_door"],
    )

    def probe(pid: int) -> None:
        for port in doors:
            probes.tls(port, layout.secrets / "ca.pem")
        if not listens(pid, gateway):
            raise NotReady(f"does not listen on port {gateway} yet")

    home = layout.run / "caddy"
    home.mkdir(mode=0o700, exist_ok=True)
    addresses = map(setup.address, ("client_door", "enrol_door", "gateway_door"))
    return ChildSpec(
        name="caddy",
        kind="server",
        argv=(program("caddy"), "run", "--config", str(configuration), "--adapter", "caddyfile"),
        address=", ".join(addresses),
        probe=probe,
        log=layout.log("caddy"),
        directory=layout.run,
        env={
            **setup.server_env(),
            "XDG_DATA_HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "GOGC": "50",  # less garbage beside the state of each open connection
        },
    )


def render(setup: Setup) -> str:
    leases, many = setup.replicas("lease"), setup.shape.replicas > 1
    keys, ca = "/.well-known/jwks.json", "/ca.pem"  # served without I/O
    return CADDYFILE.format(
        client_port=setup.ports["client_door"],
        superlink=_superlink(setup),
        enrol_port=setup.ports["enrol_door"],
        gateway_port=setup.ports["gateway_door"],
        secrets=setup.layout.secrets,
        client_sockets=" ".join(f'"unix/{client_socket(setup, name)}"' for name in leases),
        enrol_sockets=" ".join(f'"unix/{enrol_socket(setup, name)}"' for name in leases),
        gateways=" ".join(setup.address(name) for name in setup.replicas("gateway")),
        balancing="".join(
            (
                # A client may repeat each of its calls, so may we.
                _balance("poll", many, keys, POLL_SECONDS, (_READ, _SMALL)),
                _balance("call", many, keys, CALL_SECONDS, (_READ, _SMALL)),
                _balance("enrol", many, ca, CALL_SECONDS, (_READ, _TINY)),
                _balance("long", many, "/healthz", None, _SAFE),
                _balance("read", many, "/healthz", READ_SECONDS, _SAFE),
                _balance("command", many, "/healthz", COMMAND_SECONDS, _SAFE),
            )
        ),
    )


def _superlink(setup: Setup) -> str:
    if not setup.shape.superlink:
        return ""
    return SUPERLINK.format(
        routes=" ".join(f"/v1/fleet/{route}" for route in FLEET_ROUTES),
        port=setup.ports["superlink"],
        seconds=TRY_SECONDS,
        secrets=setup.layout.secrets,
    )


def _balance(
    name: str, many: bool, health_uri: str, seconds: int | None, repeatable: tuple[str, ...]
) -> str:
    """Options of a `reverse_proxy`. `seconds`: the longest that a replica may take to answer, where
    there is another to ask; `repeatable`: what may be sent again after a broken connection."""
    lines = [
        f"lb_try_duration {TRY_SECONDS}s",
        "lb_try_interval 100ms",
        "request_buffers 1MB",
        "flush_interval -1",
    ]
    for match in repeatable:
        lines += ["lb_retry_match {", f"    {match}", "}"]
    if many:
        lines += ["lb_policy least_conn", "fail_duration 1s"]
        lines += [f"health_uri {health_uri}", "health_interval 1s", "health_timeout 1s"]
    lines += ["transport http {", "    dial_timeout 1s"]
    if many and seconds is not None:
        lines.append(f"    response_header_timeout {seconds}s")
    lines.append("}")
    return "\n    ".join((f"({name}) {{", *lines)) + "\n}\n"
