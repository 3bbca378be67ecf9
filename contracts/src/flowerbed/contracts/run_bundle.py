"""The Flower App Bundle that runs over a SuperLink: made from a federation's app and its words.

The control plane makes it to start a run, a site makes it to know what its SuperNode may fetch:
the same files and words give the same bytes. It holds the app's files; in the place of its
ServerApp is ours, and around its ClientApp a module that seeds it as each order says.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping

from flowerbed.contracts.bundle import LARGEST_BUNDLE, PROJECT, BadBundle
from flowerbed.contracts.values import Scalar

SERVER_APP = "flowerbed.aggregator.flower_server_app:app"
PACKAGE = "flowerbed_bridge"
"""Where the modules lie that run the app."""
RESERVED = "flowerbed-"
"""How the names of our own entries in the run config begin; the app sees none of them."""
FEDERATION, TENANT, ATTEMPT = "flowerbed-federation", "flowerbed-tenant", "flowerbed-attempt"
"""Given to each run when it is started."""
CLIENT_APP, LOCAL_EPOCHS = "flowerbed-client-app", "flowerbed-local-epochs"

_INFO = ".info/CONTENT"
_OLDEST = (1980, 1, 1, 0, 0, 0)


def run_bundle(
    files: Mapping[str, bytes],
    client_app: str,
    bridge: Mapping[str, bytes],
    config: Mapping[str, Scalar],
    hyper_parameters: Mapping[str, Scalar],
) -> bytes:
    """`files`: of the app; none where it is installed wherever it runs. `bridge`: our modules.

    Raises:
        BadBundle: it cannot be made: a file has a name of ours, or it is larger than Flower takes.
    """
    if taken := [name for name in files if name.split("/")[0] == PACKAGE]:
        raise BadBundle(f"{taken[0]!r} is where Flowerbed's own modules lie")
    if taken := [name for name in config if name.startswith(RESERVED)]:
        raise BadBundle(f"{taken[0]!r} in its config is a name of Flowerbed's own")
    told: dict[str, Scalar] = {
        **config,
        **dict.fromkeys((FEDERATION, TENANT), ""),
        ATTEMPT: 0,
        CLIENT_APP: client_app,
        LOCAL_EPOCHS: hyper_parameters.get("local_epochs", 1),
    }
    kept = {name: content for name, content in files.items() if not name.startswith(".info/")}
    ours = {f"{PACKAGE}/{name}": module for name, module in {"__init__.py": b"", **bridge}.items()}
    raw = _zipped({**kept, **ours, PROJECT: _project(told).encode()})
    if len(raw) > LARGEST_BUNDLE:
        raise BadBundle(f"unpacked it has {len(raw)} bytes, at most {LARGEST_BUNDLE} run so")
    return raw


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Stored, not deflated: another zlib would give other bytes."""
    listed = [
        f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}"
        for name, content in sorted(files.items())
    ]
    held = {**files, _INFO: "\n".join(listed).encode()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(held.items()):
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), content)
    return out.getvalue()


def _project(config: Mapping[str, Scalar]) -> str:
    lines = [
        "[project]",
        'name = "flowerbed-run"',
        'version = "1.0.0"',
        'description = "A federation of Flowerbed"',
        'license = "Apache-2.0"',
        "dependencies = []",
        "[tool.flwr.app]",
        'publisher = "flowerbed"',
        "[tool.flwr.app.components]",
        f'serverapp = "{SERVER_APP}"',
        f'clientapp = "{PACKAGE}.bridge:app"',
        "[tool.flwr.app.config]",
        *(f"{_toml(name)} = {_toml(value)}" for name, value in sorted(config.items())),
    ]
    return "\n".join(lines) + "\n"


def _toml(value: Scalar) -> str:
    """JSON's spelling of these is TOML's too, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
