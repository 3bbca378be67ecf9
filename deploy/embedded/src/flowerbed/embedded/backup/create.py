"""Backing up a running stack, which goes on meanwhile."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from flowerbed.contracts.topology import SERVICES
from flowerbed.embedded.backup import submissions
from flowerbed.embedded.backup.artifacts import Artifact, Named, find_artifacts
from flowerbed.embedded.backup.cut import cut
from flowerbed.embedded.backup.manifest import (
    FORMAT,
    MANIFEST,
    SNAPSHOT,
    Dump,
    Manifest,
    Report,
    claimed,
    facts,
    read_manifest,
    write_manifest,
)
from flowerbed.embedded.backup.objects import Objects
from flowerbed.embedded.backup.tables import dump
from flowerbed.embedded.databases import Session
from flowerbed.embedded.errors import EmbeddedError, NotRunning
from flowerbed.embedded.layout import Layout, write_private
from flowerbed.embedded.record import read_record
from flowerbed.embedded.setup import Setup
from flowerbed.embedded.stack import Stack
from flowerbed.events.errors import FlowerbedError
from flowerbed.events.release import RELEASE

SECRETS = ("credentials.json", "ca.key", "ca.pem", "signing.key")
"""What clients and people rely on. All else is made anew."""
RUN = ("ports.json", "shape.json", "issuers.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was read at the moment of the cut."""

    taken_at: datetime
    databases: dict[str, Dump]
    waiting: submissions.Waiting
    named: Named


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    seen: _Seen
    artifacts: tuple[Artifact, ...]
    objects: Objects


def back_up(
    state_dir: Path | None,
    folder: Path,
    *,
    with_objects: bool = True,
    with_updates: bool = False,
    report: Report = lambda what, done, total: None,
) -> tuple[Manifest, tuple[Artifact, ...]]:
    """Bring `folder` up to date with the stack; also the artifacts that S3 did not have.

    Until the end, what was in `folder` before stays a complete backup. `with_updates`: every
    update, not those alone that may still count.

    Raises:
        NotRunning: there is no stack to back up.
        BadInput: `folder` holds something else.
    """
    layout = Layout.at(state_dir)
    record = read_record(layout)
    if record is None or not record.is_supervised() or record.state != "running":
        raise NotRunning(f"no stack runs in {layout.root}")
    with claimed(folder):
        _clear(folder, keep=_snapshot_of(folder))
        snapshot = Path(tempfile.mkdtemp(dir=folder, prefix=SNAPSHOT))
        try:
            found = _write_facts(layout, folder, snapshot, with_updates, report)
            missing = found.objects.fetch(found.artifacts, report) if with_objects else ()
            write_artifacts(snapshot / "missing.json", missing)
            manifest = _manifest(folder, snapshot, found, len(missing), with_objects)
            write_manifest(folder, manifest)
        finally:
            _clear(folder, keep=_snapshot_of(folder))
        if with_objects:
            found.objects.prune(found.artifacts)
    return manifest, missing


def _write_facts(
    layout: Layout, folder: Path, snapshot: Path, with_updates: bool, report: Report
) -> _Found:
    """Everything but the objects."""
    for name in (*SERVICES, "secrets", "run"):
        (snapshot / name).mkdir(mode=0o700)
    for kind, source, names in (
        ("secrets", layout.secrets, SECRETS),
        ("run", layout.run, RUN),
    ):
        for name in names:
            if (source / name).exists():
                write_private(snapshot / kind / name, (source / name).read_bytes())
    setup, objects = Setup.of_running(layout), Objects(folder, Stack(layout.root).s3)
    try:
        seen = asyncio.run(_read(setup, folder, snapshot, with_updates, report))
    except (FlowerbedError, OSError) as error:
        raise EmbeddedError(f"the backup was not finished: {error}") from error
    bases = objects.describe(seen.named.bases, snapshot)
    artifacts = tuple(sorted(seen.named.artifacts | set(bases)))
    write_private(snapshot / "submissions.json", submissions.to_json(seen.waiting))
    write_artifacts(snapshot / "artifacts.json", artifacts)
    return _Found(seen=seen, artifacts=artifacts, objects=objects)


def _manifest(
    folder: Path, snapshot: Path, found: _Found, n_missing: int, has_objects: bool
) -> Manifest:
    return Manifest(
        format=FORMAT,
        release=RELEASE,
        taken_at=found.seen.taken_at.isoformat(timespec="seconds"),
        snapshot=snapshot.name,
        databases=found.seen.databases,
        n_submissions=len(found.seen.waiting.submissions),
        n_artifacts=len(found.artifacts),
        artifact_bytes=sum(one.size for one in found.artifacts),
        n_missing=n_missing,
        has_objects=has_objects,
        files=facts(folder, snapshot),
    )


async def _read(
    setup: Setup, folder: Path, snapshot: Path, with_updates: bool, report: Report
) -> _Seen:
    taken_up = await submissions.acknowledged(setup)
    async with cut(setup) as databases:
        taken_at = datetime.now(UTC)
        waiting = await submissions.read_after(setup, taken_up)
        dumped = await _dump_all(databases, folder, snapshot, report)
        named = await find_artifacts(databases, with_updates=with_updates)
    return _Seen(taken_at=taken_at, databases=dumped, waiting=waiting, named=named)


async def _dump_all(
    databases: Mapping[str, Session], folder: Path, snapshot: Path, report: Report
) -> dict[str, Dump]:
    dumped = {}
    for number, service in enumerate(SERVICES, 1):
        dumped[service] = await dump(databases[service], folder, snapshot / service)
        report("databases", number, len(SERVICES))
    return dumped


def write_artifacts(path: Path, artifacts: tuple[Artifact, ...]) -> None:
    write_private(path, json.dumps([asdict(one) for one in artifacts], indent=1) + "\n")


def read_artifacts(path: Path) -> tuple[Artifact, ...]:
    return tuple(Artifact(**one) for one in json.loads(path.read_text()))


def _snapshot_of(folder: Path) -> str | None:
    return read_manifest(folder).snapshot if (folder / MANIFEST).exists() else None


def _clear(folder: Path, *, keep: str | None) -> None:
    """Delete snapshots of before, and what a killed backup has left."""
    for path in folder.glob(f"{SNAPSHOT}*"):
        if path.name != keep:
            shutil.rmtree(path)
