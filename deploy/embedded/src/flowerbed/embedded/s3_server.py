"""SeaweedFS as the S3 store: master, volumes, filer and S3 in one process."""

import json

from flowerbed.embedded import probes
from flowerbed.embedded.child import ChildSpec
from flowerbed.embedded.errors import ComponentFailed
from flowerbed.embedded.layout import write_private
from flowerbed.embedded.pki import S3_NAME
from flowerbed.embedded.setup import Setup, program
from flowerbed.embedded.stack import BUCKET


def s3_spec(setup: Setup) -> ChildSpec:
    layout, credentials, port = setup.layout, setup.credentials, setup.ports["s3"]
    directory = layout.secrets / "seaweedfs"
    directory.mkdir(mode=0o700, exist_ok=True)
    write_private(directory / "s3.json", _identities(setup))
    write_private(directory / "security.toml", _security(setup))
    write_private(directory / "mini.options", _options(setup))
    return ChildSpec(
        name="s3",
        kind="server",
        argv=(
            program("weed"), "-logtostderr", f"-config_dir={directory}",
            "mini", f"-options={directory / 'mini.options'}",
        ),
        address=setup.address("s3"),
        probe=lambda pid: probes.s3(port, credentials.s3_access_key, credentials.s3_secret_key),
        log=layout.log("s3"),
        directory=layout.s3,
        env=setup.server_env(),
        stop_seconds=4,  # it does not always end when told to
    )  # fmt: skip


def ensure_bucket(setup: Setup) -> None:
    credentials, port = setup.credentials, setup.ports["s3"]
    key, secret = credentials.s3_access_key, credentials.s3_secret_key
    status, _ = probes.s3_call("HEAD", port, f"/{BUCKET}", key, secret)
    if status == 404:
        status, answer = probes.s3_call("PUT", port, f"/{BUCKET}", key, secret)
        if status not in (200, 409):
            raise ComponentFailed("s3", f"bucket {BUCKET} was refused ({status}): {answer!r}")


def _options(setup: Setup) -> str:
    """No secret among them: SeaweedFS writes its options down in its data directory."""
    layout, ports = setup.layout, setup.ports
    options = {
        "dir": layout.s3,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "volume.preStopSeconds": 0,
        "s3.config": layout.secrets / "seaweedfs" / "s3.json",
        "s3.iam": "false",
        "s3.port": ports["s3"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": layout.sockets / "s3.sock",
        "filer.localSocket": layout.sockets / "filer.sock",
    }
    for part in ("s3", "master", "volume", "filer", "admin"):
        name = part if part == "s3" else f"s3_{part}"
        options[f"{part}.port"] = ports[name]
        options[f"{part}.port.grpc"] = ports[f"{name}_grpc"]
    return "".join(f"{name}={value}\n" for name, value in options.items())


def _identities(setup: Setup) -> str:
    credentials = setup.credentials
    identity = {
        "name": "flowerbed",
        "credentials": [
            {"accessKey": credentials.s3_access_key, "secretKey": credentials.s3_secret_key}
        ],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return json.dumps({"identities": [identity]})


def _security(setup: Setup) -> str:
    """Without it, whoever reaches the filer's or a volume's port reads all without a key."""
    keys = setup.credentials.s3_signing_keys
    sections = {
        "jwt.signing": keys["write"],
        "jwt.signing.read": keys["read"],
        "jwt.filer_signing": keys["filer_write"],
        "jwt.filer_signing.read": keys["filer_read"],
    }
    text = "".join(f'[{section}]\nkey = "{key}"\n' for section, key in sections.items())
    secrets = setup.layout.secrets
    text += f'[grpc]\nca = "{secrets / "ca.pem"}"\n'
    for part in ("volume", "master", "filer", "s3", "admin", "worker", "client"):
        certificate, key = secrets / "s3.pem", secrets / "s3.key"
        text += f'[grpc.{part}]\ncert = "{certificate}"\nkey = "{key}"\n'
        text += f'allowed_commonNames = "{S3_NAME}"\n'  # a client's certificate is none of these
    return text
