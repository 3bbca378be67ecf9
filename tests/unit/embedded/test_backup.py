"""A backup directory: what is refused, what a cut-short backup leaves, and what belongs to it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from flowerbed.embedded.backup.artifacts import Artifact, Seen
from flowerbed.embedded.backup.create import back_up, write_artifacts
from flowerbed.embedded.backup.manifest import (
    FORMAT,
    MANIFEST,
    Damaged,
    Dump,
    Manifest,
    Table,
    claimed,
    facts,
    read_manifest,
    write_manifest,
)
from flowerbed.embedded.backup.objects import check_objects, place_of
from flowerbed.embedded.backup.restore import restore
from flowerbed.embedded.control import RESTORING, up
from flowerbed.embedded.errors import BadInput, ComponentFailed, NotRunning
from flowerbed.events.release import RELEASE

HELLO = Artifact(
    uri="s3://flowerbed/checkpoints/hello",
    sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    size=5,
)
FED = "fed-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete backup of nothing much."""
    root = tmp_path / "backup"
    with claimed(root):
        snapshot = root / "snapshot-1"
        (snapshot / "lease").mkdir(parents=True)
        (snapshot / "lease" / "beds.copy.gz").write_bytes(b"rows")
        write_artifacts(snapshot / "artifacts.json", (HELLO,))
        write_artifacts(snapshot / "missing.json", ())
        path = place_of(root / "objects", HELLO.sha256)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"hello")
        write_manifest(root, manifest(files=facts(root, snapshot)))
    return root


def manifest(**changed: Any) -> Manifest:
    table = Table(name="events", columns=("gpos",), n_rows=3, file="snapshot-1/lease/beds.copy.gz")
    whole = Manifest(
        format=FORMAT, release=RELEASE, taken_at="2026-01-01T12:00:00+00:00",
        snapshot="snapshot-1", databases={"lease": Dump(migrations=("a",), tables=(table,))},
        n_submissions=0, n_artifacts=1, artifact_bytes=5, n_missing=0, has_objects=True, files={},
    )  # fmt: skip
    return dataclasses.replace(whole, **changed)


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    found = read_manifest(folder)
    assert found == manifest(files=found.files)
    assert set(found.files) == {
        f"snapshot-1/{name}" for name in ("artifacts.json", "lease/beds.copy.gz", "missing.json")
    }
    assert found.n_events == 3


def test_only_its_owner_may_look_into_it(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "secrets" in (folder / "FLOWERBED-BACKUP").read_text()


def test_without_a_manifest_there_is_no_backup(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(BadInput, match="no complete backup: it was not finished"):
        restore(folder, tmp_path / "state")
    with pytest.raises(BadInput, match="no complete backup: it is none"):
        restore(tmp_path / "nothing", tmp_path / "state")


def test_a_later_releases_backup_is_refused(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, manifest(release=RELEASE + 1))
    with pytest.raises(BadInput, match=f"release {RELEASE + 1} made .*, and this is release"):
        restore(folder, tmp_path / "state")
    write_manifest(folder, manifest(format=FORMAT + 1))
    with pytest.raises(BadInput, match=f"format {FORMAT + 1}, by a later release"):
        restore(folder, tmp_path / "state")


def test_only_an_empty_directory_becomes_a_stack(folder: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (state_dir / "something").touch()
    with pytest.raises(BadInput, match="is not empty"):
        restore(folder, state_dir)
    assert [path.name for path in state_dir.iterdir()] == ["something"]


def test_a_damaged_file_is_found_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    (folder / "snapshot-1" / "lease" / "beds.copy.gz").write_bytes(b"rowz")
    with pytest.raises(Damaged, match=r"beds\.copy\.gz is damaged"):
        restore(folder, tmp_path / "state")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("content", [b"hallo", None])
def test_a_damaged_or_lost_object_is_found(folder: Path, content: bytes | None) -> None:
    check_objects(folder, [HELLO], lambda what, done, total: None)
    path = place_of(folder / "objects", HELLO.sha256)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Damaged, match=HELLO.sha256):
        check_objects(folder, [HELLO], lambda what, done, total: None)


def test_a_list_of_objects_alone_has_to_be_asked_for(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, manifest(has_objects=False))
    with pytest.raises(BadInput, match="does not hold them: restore it with --no-objects"):
        restore(folder, tmp_path / "state")


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()
    with pytest.raises(BadInput, match="holds something else"), claimed(tmp_path):
        pass


def test_two_backups_do_not_share_a_directory(folder: Path) -> None:
    with claimed(folder), pytest.raises(BadInput, match="another backup"), claimed(folder):
        pass


def test_a_stack_that_does_not_run_cannot_be_backed_up(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no stack runs"):
        back_up(tmp_path / "state", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_restore_that_fails_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = folder / "snapshot-1" / "secrets"
    secrets.mkdir()
    (secrets / "credentials.json").write_text('{"stack_id": "old"}')
    (folder / "snapshot-1" / "run").mkdir()
    found = []

    def started(root: Path, services: tuple[str, ...]) -> None:
        found.append(json.loads((root / "secrets" / "credentials.json").read_text())["stack_id"])
        raise ComponentFailed("postgres", "the disk is full")

    monkeypatch.setattr("flowerbed.embedded.backup.restore.up", started)
    with pytest.raises(ComponentFailed, match="the disk is full"):
        restore(folder, tmp_path / "state")
    assert found not in ([], ["old"])  # the old one may still be there under its name
    assert not (tmp_path / "state").exists()


def test_a_half_restored_stack_is_not_started(tmp_path: Path) -> None:
    (tmp_path / RESTORING).touch()
    with pytest.raises(BadInput, match="was cut short; delete it"):
        up(tmp_path)


# --- the list of artifacts ----------------------------------------------------------------------


Fact = tuple[str, str, str, dict[str, Any]]


def ref(name: str) -> dict[str, Any]:
    return {"uri": f"s3://flowerbed/{name}", "sha256": name * 8, "size": 1}


def update(fact: str, number: int, **more: Any) -> Fact:
    work = {"work_id": f"work-{number}", "artifact": ref(f"update-{number}"), **more}
    stream = f"exchange-{FED}-{number}" if fact != "submitted" else "lease-1"
    return (f"fl.update.{fact}", stream, FED, work)


def kept(*events: Fact) -> set[str]:
    seen = Seen()
    for one in events:
        seen.see(*one)
    return {one.uri.removeprefix("s3://flowerbed/") for one in seen.kept | set(seen.updates())}


def test_an_update_belongs_to_a_backup_while_it_may_count() -> None:
    submitted, accepted = update("submitted", 1), update("accepted", 1)
    closed = ("fl.aggregate.completed", f"exchange-{FED}-1", FED, {"checkpoint": ref("global")})
    ended: Fact = ("fl.federation.cancelled", "federation-1", FED, {})
    late = update("submitted", 2)
    assert kept(submitted) == {"update-1"}
    assert kept(submitted, accepted) == {"update-1"}
    assert kept(submitted, accepted, closed) == {"global"}
    assert kept(submitted, accepted, late, closed) == {"global", "update-2"}
    assert kept(submitted, ended) == set()


def test_a_base_that_nobody_has_read_yet_belongs_to_a_backup() -> None:
    def created(number: int, uri: str) -> Fact:
        data = {"spec": {"spec": {"model_ref": {"uri": uri}}}}
        return ("fl.federation.created", f"federation-{number}", f"fed-{number}", data)

    seen = Seen()
    for number, uri in enumerate(("s3://b/new", "s3://b/read", "s3://b/over", "builtin:x")):
        seen.see(*created(number, uri))
    seen.see("fl.artifact.recorded", "lineage-fed-1", "fed-1", {"kind": "base"})
    seen.see("fl.federation.failed", "federation-2", "fed-2", {})
    assert seen.awaited_bases() == {"s3://b/new"}


def test_references_are_found_however_deep() -> None:
    data = {"owed": [{"base": ref("old")}], "base": ref("new"), "spec": {"uri": "builtin:x"}}
    assert kept(("fl.round.started", "federation-1", FED, json.loads(json.dumps(data)))) == {
        "old",
        "new",
    }
