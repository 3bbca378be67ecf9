"""Caddy as the clients' doors: TLS ends here, and only these paths lead inside."""

from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.layout import write_private
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

# Clients that are enrolled: no certificate of ours, no connection.
https://:{client_port} {{
    tls "{secrets}/server.pem" "{secrets}/server.key" {{
        client_auth {{
            mode require_and_verify
            trust_pool file "{secrets}/ca.pem"
        }}
    }}
    @open path /v1/* /.well-known/jwks.json
    handle @open {{
        request_body {{
            max_size 1MB
        }}
        reverse_proxy "unix/{client_socket}" {{
            header_up Client-Cert ":{{tls_client_certificate_der_base64}}:"
            transport http {{
                response_header_timeout 120s
            }}
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
        reverse_proxy "unix/{enrol_socket}" {{
            header_up -Client-Cert
        }}
    }}
    handle {{
        respond 404
    }}
}}
"""


def client_socket(setup: Setup) -> str:
    return str(setup.layout.sockets / "lease-clients.sock")


def enrol_socket(setup: Setup) -> str:
    return str(setup.layout.sockets / "lease-enrol.sock")


def caddy_spec(setup: Setup) -> ChildSpec:
    layout = setup.layout
    configuration = layout.run / "Caddyfile"
    write_private(configuration, render(setup))
    doors = (setup.ports["client_door"], setup.ports["enrol_door"])

    def probe(_: int) -> None:
        for port in doors:
            probes.tls(port, layout.secrets / "ca.pem")

    home = layout.run / "caddy"
    home.mkdir(mode=0o700, exist_ok=True)
    return ChildSpec(
        name="caddy",
        kind="server",
        argv=(program("caddy"), "run", "--config", str(configuration), "--adapter", "caddyfile"),
        address=f"{setup.address('client_door')}, {setup.address('enrol_door')}",
        probe=probe,
        log=layout.log("caddy"),
        directory=layout.run,
        env={**setup.server_env(), "XDG_DATA_HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )


def render(setup: Setup) -> str:
    return CADDYFILE.format(
        client_port=setup.ports["client_door"],
        enrol_port=setup.ports["enrol_door"],
        secrets=setup.layout.secrets,
        client_socket=client_socket(setup),
        enrol_socket=enrol_socket(setup),
    )
