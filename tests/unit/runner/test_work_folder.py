"""Work under way is found again whole or not at all, and does not pile up."""

import hashlib
import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flowerbed.runner import work_folder
from flowerbed.runner.errors import Refused
from flowerbed.runner.journal import Journal
from flowerbed.runner.memories import APP_STATE, LEFT_OUT
from flowerbed.runner.pipe import Result
from flowerbed.runner.storage import check_free, is_full, needed_for, refusal
from flowerbed.runner.work_folder import KEPT_SECONDS, WorkFolder, prune
from tests.unit.runner.test_journal import finished, key

UPDATE = b"update"


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "work" / "a")
    folder.make()
    return folder


def result(content: bytes = UPDATE) -> Result:
    sha256 = hashlib.sha256(content).hexdigest()
    return Result(sha256=sha256, size=len(content), metrics={"loss": 0.5}, seconds=1.0)


def test_finished_work_is_found_if_it_is_whole(folder: WorkFolder) -> None:
    assert folder.finished() is None
    folder.update.write_bytes(UPDATE)
    folder.finish(result())
    assert folder.finished() == result()
    folder.update.write_bytes(UPDATE[:-1])
    assert folder.finished() is None
    folder.update.write_bytes(UPDATE)
    folder.result.write_bytes(folder.result.read_bytes()[:10])
    assert folder.finished() is None


@pytest.mark.parametrize(
    ("names", "progress"),
    [
        ([], None),
        ([".incoming.pt"], None),
        (["anything.bin"], 0),
        (["epoch-000000003.pt", "epoch-12.pt", "notes.txt"], 12),
        (["deeper/epoch-4.pt"], 4),
    ],
)
def test_progress_is_what_names_say(
    names: list[str], progress: int | None, folder: WorkFolder
) -> None:
    for name in names:
        path = folder.checkpoint / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert folder.progress() == progress


def test_old_work_and_too_much_of_it_is_removed_but_not_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    ages = {"new": 1.0, "older": 60.0, "oldest": 120.0, "old": KEPT_SECONDS + 60, "busy": 1e9}
    for name, age in ages.items():
        folder = WorkFolder(tmp_path / name)
        folder.make()
        (folder.checkpoint / "epoch-1.pt").write_bytes(b"x" * 100)
        for path in (folder.checkpoint, folder.path):
            os.utime(path, (now - age, now - age))
    monkeypatch.setattr(work_folder, "LARGEST_TOGETHER", 250)
    prune(tmp_path, {"busy"})
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", "busy"}


def test_run_that_was_cut_short_goes_on_as_the_same_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    first = journal.start_run(key(), "lease-1")
    again = journal.start_run(key(attempt=2), "lease-1")
    assert (first.is_new, again.is_new, again.number) == (True, False, first.number)
    journal.go_on(again, None)
    journal.go_on(again, 7)
    journal.record(key(), finished(), run=again, epochs=9, tokens=1)
    assert journal.start_run(key(), "lease-1").is_new, "done again: that is another run"
    with sqlite3.connect(tmp_path / "journal.sqlite3") as connection:
        rows = connection.execute("SELECT resumed, resumed_from, restarted FROM runs")
        assert rows.fetchall() == [(1, 7, 1), (0, None, 0)]


def test_app_remembers_each_work_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")

    def record(round_number: int, state: str | None, lease: str = "lease-1") -> None:
        work = key(round_number=round_number)
        run = journal.start_run(work, lease)
        journal.record(work, replace(finished(), state_sha256=state), run=run, epochs=1, tokens=1)

    record(1, "s1")
    record(2, "s2")
    record(1, "s1 again")  # its result was lost
    assert journal.memory_of(APP_STATE, "lease-1") == "s2"
    assert journal.memory_after(APP_STATE, key(round_number=2).digest) == "s2"
    assert journal.memory_after(APP_STATE, key(round_number=1).digest) is None
    record(3, "other", lease="lease-2")
    assert journal.needed_memories() == {"s2", "other"}
    record(4, None)
    assert (journal.memory_of(APP_STATE, "lease-1"), journal.needed_memories()) == (None, {"other"})


def test_journal_of_an_earlier_release_is_taken_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, work TEXT NOT NULL,"
            " lease_id TEXT NOT NULL, exchange TEXT NOT NULL, started_at TEXT NOT NULL,"
            " finished_at TEXT, epochs INTEGER NOT NULL DEFAULT 0,"
            " tokens INTEGER NOT NULL DEFAULT 0)"
        )
        connection.execute(
            "INSERT INTO runs (work, lease_id, exchange, started_at) VALUES (?, 'l', 'train', 'x')",
            (key().digest,),
        )
    journal = Journal(path)
    run = journal.start_run(key(), "l")
    assert not run.is_new
    journal.go_on(run, 3)
    journal.close()
    assert Journal(path).start_run(key(), "l") == run, "and opened again"


def test_full_disk_is_known_however_it_is_said(tmp_path: Path) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(28, "No space left on device")
    said = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    for error in (full, wrapped, said, OSError(122, "Disk quota exceeded")):
        assert is_full(error)
    for other in (OSError(5, "Input/output error"), sqlite3.OperationalError("locked"), KeyError()):
        assert not is_full(other)
    assert refusal(full, tmp_path).code == "disk-full"
    broken = refusal(OSError(5, "Input/output error"), tmp_path)
    assert (broken.code, broken.detail) == ("site-storage", "OSError at the site")


def test_room_is_looked_for_before_it_is_needed(tmp_path: Path) -> None:
    check_free(tmp_path, needed_for(1000))
    with pytest.raises(Refused, match=r"disk-full: .* MiB are needed at the site, .* MiB free"):
        check_free(tmp_path, needed_for(1 << 50))
    with pytest.raises(Refused, match="0 bytes free"):
        check_free(tmp_path / "nowhere", 1)


def test_what_an_update_left_out_counts_once_and_evaluations_leave_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")

    def record(number: int, left: str | None, exchange: str = "train") -> None:
        one = key(round_number=number, exchange=exchange)
        run = journal.start_run(one, "lease-1")
        done = replace(finished(f"r{number}"), left_sha256=left)
        journal.record(one, done, run=run, epochs=1, tokens=1)

    record(1, "l1")
    record(1, None, "evaluate")
    record(2, "l2")
    record(2, "l2 again")  # its result was lost
    second = key(round_number=2).digest
    assert journal.memory_of(LEFT_OUT, "lease-1") == "l2"
    assert journal.memory_after(LEFT_OUT, second) == "l2"
    assert journal.memory_of(LEFT_OUT, "lease-1", before=second) is None, "it is in it already"
    assert journal.needed_memories() == {"l2"}
