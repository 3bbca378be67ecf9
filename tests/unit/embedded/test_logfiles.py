"""Logs are turned over, read from their end, and followed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerbed.embedded import logfiles
from flowerbed.embedded.logfiles import follow, open_log, tail


def test_log_is_appended_to(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with open_log(tmp_path / "nats.log") as log:
            log.write(line)

    assert (tmp_path / "nats.log").read_text() == "one\ntwo\n"
    assert (tmp_path / "nats.log").stat().st_mode & 0o777 == 0o600


def test_long_log_is_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "nats.log"
    path.write_bytes(b"x" * (logfiles.TURN_OVER_AT + 1))

    open_log(path).close()

    assert path.read_bytes() == b""
    assert (tmp_path / "nats.log.1").stat().st_size == logfiles.TURN_OVER_AT + 1


def test_tail_is_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "nats.log"
    path.write_text("".join(f"line {number}\n" for number in range(30_000)))

    assert tail(path, 2) == "line 29998\nline 29999"
    assert tail(path, 0) == ""
    assert len(tail(path, 20_000).splitlines()) == 20_000
    assert len(tail(path, 40_000).splitlines()) == 30_000


def test_tail_of_no_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log", 5) == ""


def test_following_sees_new_lines_also_after_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, later = tmp_path / "nats.log", tmp_path / "later.log"
    path.write_text("old\n")
    changes: list[Callable[[], object]] = [
        lambda: path.write_text("old\nnew\nhalf"),
        lambda: path.write_text("old\nnew\nhalf a line\n"),
        lambda: path.rename(tmp_path / "nats.log.1"),
        lambda: path.write_text("turned\n"),
        lambda: later.write_text("begun\n"),
        lambda: None,
    ]
    steps = iter(changes)
    done = False

    def between(_: float) -> None:
        nonlocal done
        step = next(steps, None)
        done = step is None
        if step is not None:
            step()

    monkeypatch.setattr(time, "sleep", between)

    assert list(follow([path, later], lambda: done)) == [
        ("nats", "new"), ("nats", "half a line"), ("nats", "turned"), ("later", "begun"),
    ]  # fmt: skip
