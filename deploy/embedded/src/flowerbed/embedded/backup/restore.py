"""A new stack from a backup: the same secrets and facts, new servers."""

import asyncio
import json
import secrets
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.backup import submissions
from flowerbed.embedded.backup.artifacts import Artifact
from flowerbed.embedded.backup.create import read_artifacts
from flowerbed.embedded.backup.manifest import Dump, Manifest, Report, check, read_manifest
from flowerbed.embedded.backup.objects import Objects, check_objects
from flowerbed.embedded.backup.tables import load
from flowerbed.embedded.control import RESTORING, down, up
from flowerbed.embedded.databases import connect, migrate_as_of
from flowerbed.embedded.errors import BadInput, EmbeddedError
from flowerbed.embedded.layout import Layout, write_private, write_private_json
from flowerbed.embedded.postgres import SUPERUSER
from flowerbed.embedded.removal import remove
from flowerbed.embedded.setup import Setup
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.release import RELEASE


def restore(
    folder: Path,
    state_dir: Path | None,
    *,
    with_objects: bool = True,
    report: Report = lambda what, done, total: None,
) -> Manifest:
    """Make a stack in an empty state directory; it is stopped afterwards, for `up` to start.

    Without objects, whoever restores puts them into S3 by hand: the list names them.

    Raises:
        BadInput: there is no complete backup, a later release made it, it has no objects, or the
            state directory is not empty.
        Damaged: a file is not what it was when the backup was made.
    """
    manifest = read_manifest(folder)
    _refuse(folder, manifest, with_objects)
    layout = Layout.at(state_dir)
    _refuse_used(layout)
    snapshot = folder / manifest.snapshot
    _check_files(folder, manifest, report)
    artifacts = _to_put_back(snapshot) if with_objects else ()
    check_objects(folder, artifacts, report)
    layout.make()
    try:
        write_private(layout.root / RESTORING, f"from {folder}\n")
        _put_secrets(layout, snapshot)
        _fill(layout, folder, manifest, artifacts, report)
    except BaseException:
        remove(layout.root)
        raise
    (layout.root / RESTORING).unlink()
    return manifest


def _fill(
    layout: Layout,
    folder: Path,
    manifest: Manifest,
    artifacts: tuple[Artifact, ...],
    report: Report,
) -> None:
    """With the servers alone; no service runs before everything is there."""
    try:
        stack = up(layout.root, services=())
        asyncio.run(_load_all(Setup.of_running(layout), folder, manifest, report))
        if artifacts:
            objects = Objects(folder, stack.s3)
            objects.put_back(artifacts, report)
    except FlowerbedError as error:
        raise EmbeddedError(f"the stack was not restored: {error}") from error
    finally:
        down(layout.root)


def _refuse(folder: Path, manifest: Manifest, with_objects: bool) -> None:
    if manifest.release > RELEASE:
        raise BadInput(
            f"release {manifest.release} made {folder}, and this is release {RELEASE}:"
            " restore it with that release"
        )
    if with_objects and not manifest.has_objects:
        raise BadInput(
            f"{folder} lists the objects and does not hold them: restore it with --no-objects,"
            " and put them into S3 under the URIs of its artifacts.json"
        )


def _refuse_used(layout: Layout) -> None:
    if layout.root.exists() and (not layout.root.is_dir() or any(layout.root.iterdir())):
        raise BadInput(f"{layout.root} is not empty: a stack is restored into a new directory")


def _check_files(folder: Path, manifest: Manifest, report: Report) -> None:
    for number, (name, fact) in enumerate(manifest.files.items(), 1):
        check(folder / name, fact)
        report("digests", number, len(manifest.files))


def _to_put_back(snapshot: Path) -> tuple[Artifact, ...]:
    """What S3 did not have when the backup was made cannot be put back."""
    missing = set(read_artifacts(snapshot / "missing.json"))
    return tuple(one for one in read_artifacts(snapshot / "artifacts.json") if one not in missing)


def _put_secrets(layout: Layout, snapshot: Path) -> None:
    for kind, target in (("secrets", layout.secrets), ("run", layout.run)):
        for path in (snapshot / kind).iterdir():
            write_private(target / path.name, path.read_bytes())
    credentials = layout.secrets / "credentials.json"
    # The stack that was may still be on this machine, and have its place there.
    _change(credentials, stack_id=secrets.token_hex(8))
    if layout.shape.exists():
        _change(layout.shape, links={})


def _change(path: Path, **values: object) -> None:
    write_private_json(path, {**json.loads(path.read_text()), **values})


async def _load_all(setup: Setup, folder: Path, manifest: Manifest, report: Report) -> None:
    for number, service in enumerate(SERVICES, 1):
        await _load(setup, service, manifest.databases[service], folder)
        report("databases", number, len(SERVICES))
    waiting = (folder / manifest.snapshot / "submissions.json").read_text()
    await submissions.publish_again(setup, submissions.from_json(waiting))


async def _load(setup: Setup, service: str, dumped: Dump, folder: Path) -> None:
    await migrate_as_of(setup, service, dumped.migrations)
    connection = await connect(setup, SUPERUSER, service)
    try:
        await load(connection, dumped, folder)
    finally:
        await connection.close()
