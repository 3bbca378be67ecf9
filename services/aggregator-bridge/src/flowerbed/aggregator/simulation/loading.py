"""The ClientApp that a simulation runs: one that ships with us, or a bundle that was pushed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.clientapp import ClientApp

from flowerbed.aggregator.simulation.assignment import Assignment
from flowerbed.aggregator.simulation.errors import CannotSimulate
from flowerbed.artifact.blobs import Blobs, DigestDiffers, TooLarge
from flowerbed.contracts.apps import BUILTIN, bundle_uri, is_pushed
from flowerbed.contracts.bundle import LARGEST_BUNDLE, BadBundle, run_config, unpack
from flowerbed.contracts.values import Scalar
from flowerbed.events.errors import NotFound
from flowerbed.flower_apps import registry
from flowerbed.flower_apps.seeded import load_seeded


@dataclass(frozen=True, slots=True)
class VirtualApp:
    """`load` is called in the processes that run it. `folder`: of an app that was pushed."""

    load: Callable[[], ClientApp]
    run_config: dict[str, Scalar]
    folder: Path | None = None


def virtual_app(assignment: Assignment, blobs: Blobs) -> VirtualApp:
    """Blocks, to fetch it.

    Raises:
        CannotSimulate: it is not here as the federation was created with, or may not run here.
        StoreAway: it cannot be fetched now.
    """
    app = assignment.spec.spec.app
    if is_pushed(app):
        return _pushed(assignment, blobs)
    builtin = registry.find(app.removeprefix(BUILTIN))
    here = registry.code_hash(builtin.name)
    if here != assignment.code_hash:
        detail = f"{app} has code {here} here, {assignment.code_hash} is asked"
        raise CannotSimulate("code-hash", detail)
    return VirtualApp(partial(load_seeded, builtin.client_app, None), builtin.default_config())


def _pushed(assignment: Assignment, blobs: Blobs) -> VirtualApp:
    if not assignment.runs_pushed_apps:
        raise CannotSimulate("app-not-run", "this control plane runs no app that was pushed")
    app, sha256 = assignment.spec.spec.app, assignment.code_hash
    fab, folder = assignment.folder / "app.fab", assignment.folder / "app"
    try:
        uri = bundle_uri(assignment.bucket, assignment.tenant, sha256)
        blobs.download(uri, fab, sha256=sha256, max_bytes=LARGEST_BUNDLE)
        bundle = unpack(fab.read_bytes(), folder)
    except (BadBundle, NotFound, DigestDiffers, TooLarge) as error:
        raise CannotSimulate("bad-app", f"{app} cannot be had: {error}") from error
    config = run_config(bundle.config, assignment.spec.spec.hyper_parameters)
    load = partial(load_seeded, bundle.client_app, str(folder))
    return VirtualApp(load, config, folder)
