"""A dataset is known by its digest and its label, never by its path."""

import hashlib
import json
import os
import uuid
from pathlib import Path

import pytest

from flowerbed.runner.dataset import Dataset, DatasetUnreadable
from flowerbed.runner.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "part").mkdir(parents=True)
    (folder / "rows.csv").write_text("1,2\n")
    (folder / "part" / "b.csv").write_text("3,4\n")
    return folder


def digest(folder: Path, cache: Path | None = None) -> str:
    return Dataset.open(f"local:{folder}", digests=cache).reference().sha256


def test_digest_is_of_sorted_names_and_file_digests(folder: Path) -> None:
    files = {"part/b.csv": b"3,4\n", "rows.csv": b"1,2\n"}
    lines = "".join(f"{n} {hashlib.sha256(c).hexdigest()}\n" for n, c in files.items())
    reference = Dataset.open(f"local:{folder}", "heart").reference()
    assert reference.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    task, _, label = reference.label.partition("-")
    assert (task, uuid.UUID(label).version) == ("heart", 5)


def test_digest_follows_content_and_names_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    folder = folder.rename(tmp_path / "moved")
    os.utime(folder / "rows.csv", (1, 1))
    assert digest(folder) == before
    (folder / "rows.csv").rename(folder / "other.csv")
    renamed = digest(folder)
    (folder / "other.csv").write_text("1,3\n")
    assert len({before, renamed, digest(folder)}) == 3


def test_files_are_read_again_only_when_they_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "digests.json"
    before = digest(folder, cache)
    read: list[str] = []
    original = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        read.append(Path(file.name).name)  # type: ignore[attr-defined]  # an open file
        return original(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    assert digest(folder, cache) == before
    assert read == []
    (folder / "rows.csv").write_text("9,9\n")
    assert digest(folder, cache) != before
    assert read == ["rows.csv"]


def test_change_that_keeps_size_and_modification_time_is_seen(folder: Path) -> None:
    dataset = Dataset.open(f"local:{folder}")
    before = dataset.reference()
    stat = (folder / "rows.csv").stat()
    (folder / "rows.csv").write_text("8,8\n")
    os.utime(folder / "rows.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert dataset.reference() != before


def test_task_is_what_the_folder_says_then_what_the_person_says(folder: Path) -> None:
    assert Dataset.open(f"local:{folder}").task == "dataset"
    assert Dataset.open(f"local:{folder}", "lungs").uri == "local:lungs"
    (folder / "dataset.json").write_text(json.dumps({"task": "heart"}))
    assert Dataset.open(f"local:{folder}", "lungs").task == "heart"
    (folder / "dataset.json").write_text('{"task": "Heart Clinic"}')
    with pytest.raises(BadInput, match="task 'Heart Clinic': 1 to 60 lower-case"):
        Dataset.open(f"local:{folder}")
    (folder / "dataset.json").write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        Dataset.open(f"local:{folder}")


def test_what_is_no_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for uri, words in [
        ("s3://bucket/data", "local:/path/to/folder"),
        ("local:", "local:/path/to/folder"),
        (f"local:{tmp_path / 'nowhere'}", "is not a folder"),
        (f"local:{folder / 'rows.csv'}", "is not a folder"),
        (f"local:{tmp_path / 'empty'}", "holds no file"),
    ]:
        with pytest.raises(BadInput, match=words):
            Dataset.open(uri)


def test_links_are_followed_to_files_only(folder: Path, tmp_path: Path) -> None:
    plain = digest(folder)
    (folder / "rows.csv").rename(tmp_path / "kept.csv")
    (folder / "rows.csv").symlink_to(tmp_path / "kept.csv")
    assert digest(folder) == plain
    (folder / "gone.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DatasetUnreadable, match="is a link to nothing"):
        digest(folder)
    (folder / "gone.csv").unlink()
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(DatasetUnreadable, match="is a link to a folder"):
        digest(folder)


def test_file_that_goes_away_or_cannot_be_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.open(f"local:{folder}")
    with monkeypatch.context() as patch, pytest.raises(DatasetUnreadable, match="cannot be read"):
        patch.setattr(Path, "open", _refuse)
        dataset.reference()
    for file in (folder / "rows.csv", folder / "part" / "b.csv"):
        file.unlink()
    with pytest.raises(DatasetUnreadable, match="holds no file"):
        dataset.reference()


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "no")
