"""An app's own code makes the base checkpoint, or aggregates a round, in a process of its own that
knows nothing of us.

It runs as this service's user all the same: what it may do to the machine is the operator's to
decide (docs/security.md), who may have only bases from S3.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.contracts.apps import BUILTIN, MODEL, bundle_uri, is_pushed
from flowerbed.contracts.bundle import LARGEST_BUNDLE, BadBundle, Bundle, unpack
from flowerbed.contracts.values import Scalar
from flowerbed.events.errors import Rejected, Unavailable
from flowerbed.flower_apps.nursery import Fresh, Nursery, starter
from flowerbed.flower_apps.registry import code_hash

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_SAME_BYTES = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}


BUNDLE = "app.fab"
"""The file of a fetched bundle."""


class CodeDiffers(Rejected):
    code: ClassVar[str] = "code-hash"


class AppFailed(Rejected):
    code: ClassVar[str] = "app-failed"


class AppNotRun(Rejected):
    code: ClassVar[str] = "app-not-run"


async def run_app(bridge: Bridge, asked: Asked, folder: Path, path: Path) -> None:
    """Have the spec's app write its initial model to `path`."""
    if is_pushed(asked.spec.spec.app):
        await _run_pushed(bridge, asked, folder, path)
    else:
        await _run_builtin(bridge, asked, path)


async def fetch_pushed(bridge: Bridge, asked: Asked, folder: Path) -> tuple[Path, Bundle]:
    """The bundle that the spec names, unpacked.

    Raises:
        NotFound: the federation's tenant never pushed it.
        DigestDiffers: what lies there is something else.
    """
    sha256 = asked.created.code_hash
    fab, unpacked = folder / BUNDLE, folder / "app"
    uri = bundle_uri(bridge.bucket, asked.context.tenant, sha256)

    def fetch() -> tuple[Path, Bundle]:
        bridge.blobs.download(uri, fab, sha256=sha256, max_bytes=LARGEST_BUNDLE)
        return unpacked.absolute(), unpack(fab.read_bytes(), unpacked)

    try:
        return await asyncio.to_thread(fetch)
    except BadBundle as error:
        raise AppFailed(f"{asked.spec.spec.app} cannot be unpacked: {error}") from error


async def run_strategy(bridge: Bridge, asked: Asked, folder: Path, job: Mapping[str, Any]) -> None:
    """Have the spec's own strategy aggregate an exchange, as `job` says.

    Raises:
        AppFailed: it broke, or cannot be driven.
        AppNotRun: the operator lets no app run here that was pushed.
    """
    spec, unpacked, config = asked.spec.spec, None, {}
    name = f"strategy {spec.strategy.custom}"
    its_own = {**environment(), **_SAME_BYTES}
    if is_pushed(spec.app):
        if not bridge.runs_pushed_apps:
            raise AppNotRun(f"this control plane runs no app that was pushed, nor its {name}")
        unpacked, bundle = await fetch_pushed(bridge, asked, folder)
        config = {**bundle.config, **_dashed(spec.hyper_parameters)}
        its_own |= {"HOME": str(unpacked)}
    told = {
        "reference": spec.strategy.custom,
        "folder": None if unpacked is None else str(unpacked),
        "params": dict(spec.strategy.params),
        "config": config,
    }
    path = folder / "job.json"
    await asyncio.to_thread(path.write_text, json.dumps({**told, **job}))
    await _run(bridge, name, ("aggregate_own", "--job", str(path)), its_own)


async def check_server_app(bridge: Bridge, asked: Asked, folder: Path) -> tuple[Path, Bundle]:
    """The app whose ServerApp is to run here, unpacked.

    Raises:
        AppNotRun: the operator lets no app run here that was pushed.
        AppFailed: it names no ServerApp.
    """
    if not bridge.runs_pushed_apps:
        raise AppNotRun(
            "this control plane runs no app that was pushed: leave server_app away, and name a"
            " base checkpoint in S3, model_ref: {uri: s3://…}"
        )
    unpacked, bundle = await fetch_pushed(bridge, asked, folder)
    if not bundle.server_app:
        raise AppFailed(
            f"app {bundle.name} names no ServerApp: [tool.flwr.app.components] needs"
            ' serverapp = "module:name"'
        )
    return unpacked, bundle


async def _run_builtin(bridge: Bridge, asked: Asked, path: Path) -> None:
    app = asked.spec.spec.app.removeprefix(BUILTIN)
    here = await asyncio.to_thread(code_hash, app)
    if here != asked.created.code_hash:
        raise CodeDiffers(f"app {app} has code {here} here, {asked.created.code_hash} is asked")
    train = asked.spec.spec.train
    told = ("--app", app, *_told(train.seed, path, _dashed(train.app_parameters)))
    try:
        process = await bridge.start_app(app)
    except ConnectionError as error:
        raise Unavailable(f"app {app} is to be started again: {error}") from error
    try:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        async with asyncio.timeout(bridge.initialize_timeout.total_seconds()):
            errors, code = await process.stderr.read(), await process.wait()
    except TimeoutError as error:
        raise AppFailed(f"app {app} was not done in time") from error
    finally:
        await process.end()
    _check(f"app {app}", code, errors)


async def _run_pushed(bridge: Bridge, asked: Asked, folder: Path, path: Path) -> None:
    spec = asked.spec.spec
    if not bridge.runs_pushed_apps:
        raise AppNotRun(
            "this control plane runs no app that was pushed: put a base checkpoint into S3 and"
            " name it, model_ref: {uri: s3://…}"
        )
    unpacked, bundle = await fetch_pushed(bridge, asked, folder)
    assert spec.model_ref is not None  # only a whole ServerApp has none
    config = {**bundle.config, **_dashed(spec.hyper_parameters)}
    model = spec.model_ref.uri.removeprefix(MODEL)
    told = _told(spec.train.seed, path, config)
    command = ("initialize_own", "--folder", str(unpacked), "--model", model, *told)
    # Whatever it looks for at home is not ours.
    homeless = {**environment(), "HOME": str(unpacked)}
    await _run(bridge, f"app {bundle.name}", command, homeless)


async def _run(
    bridge: Bridge,
    app: str,
    command: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"flowerbed.flower_apps.{command[0]}", *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(bridge.initialize_timeout.total_seconds()):
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise AppFailed(f"{app} was not done in time") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    _check(app, process.returncode, errors)


def _check(app: str, code: int | None, errors: bytes) -> None:
    if code != 0:
        last = errors.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise AppFailed(f"{app} ended with {code}: {last[:500]}")


def builtin_starter() -> Fresh | Nursery:
    """Starts processes in which an app that ships with us makes its base checkpoint."""
    return starter((sys.executable, "-m", "flowerbed.flower_apps.initialize", "-"), environment())


def _told(seed: int, path: Path, config: Mapping[str, Scalar]) -> tuple[str, ...]:
    return "--seed", str(seed), "--out", str(path), "--config", json.dumps(config)


def environment() -> dict[str, str]:
    """The app's code needs nothing of ours: no settings file, no token."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def _dashed(config: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """As Flower apps spell the names of their parameters."""
    return {key.replace("_", "-"): value for key, value in config.items()}
