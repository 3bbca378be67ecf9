"""Time is the control plane's, whatever this machine's clock says."""

import email.utils
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from flowerbed.contracts.door import LeaseKey
from flowerbed.runner import clock
from flowerbed.runner.clock import DATE_SECONDS, DOUBT, OFFSET_FILE_VARIABLE, Clock, since_boot
from flowerbed.runner.door import Door

HOUR = 3600.0


@pytest.fixture
def skew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "offset"
    monkeypatch.setenv(OFFSET_FILE_VARIABLE, str(file))
    return file


def date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_clock_that_is_an_hour_wrong_is_put_right_by_one_answer(wrong: float, skew: Path) -> None:
    skew.write_text(str(wrong))
    ours = Clock()
    assert abs(ours.now() - time.time() - wrong) < 60
    assert ours.doubt() == DOUBT
    sent = since_boot()
    ours.learn(date(time.time()), sent, since_boot())
    assert abs(ours.now() - time.time()) <= DATE_SECONDS
    assert abs(ours.wrong_by() - wrong) <= DATE_SECONDS
    assert ours.doubt() == timedelta(0)


def test_machine_clock_that_jumps_later_moves_nothing(skew: Path) -> None:
    ours = Clock()
    ours.learn(date(time.time()), since_boot(), since_boot())
    skew.write_text(str(HOUR))
    assert abs(ours.now() - time.time()) <= DATE_SECONDS


def test_good_clock_is_left_as_it_is() -> None:
    ours = Clock()
    before = ours.now() - since_boot()
    for slow in (0.0, 45.0):  # the date is of the moment of the answer, or of before a long poll
        ours.learn(date(time.time()), since_boot() - slow, since_boot())
        ours.learn(date(time.time() - slow), since_boot() - slow, since_boot())
    assert abs(ours.now() - since_boot() - before) < DATE_SECONDS


@pytest.mark.parametrize("header", [None, "", "soon", "Thu, 99 Jan 1970 00:00:00 GMT"])
def test_answer_without_a_date_teaches_nothing(header: str | None) -> None:
    ours = Clock()
    ours.learn(header, since_boot(), since_boot())
    assert not ours.is_learned


async def test_door_is_what_the_time_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Clock()
    monkeypatch.setattr(clock, "learn", ours.learn)
    held = {"lease_id": "l", "epoch": 1, "heartbeat_seconds": 5, "expires_at": "2026-01-01T00:00Z"}
    answer = httpx.Response(200, json=held, headers={"date": date(time.time() + HOUR)})
    transport = httpx.MockTransport(lambda _: answer)
    door = Door("https://door", lambda: httpx.AsyncClient(transport=transport))
    await door.heartbeat(LeaseKey(lease_id="l", epoch=1))
    assert abs(ours.now() - time.time() - HOUR) <= DATE_SECONDS


def test_nothing_else_in_the_runner_reads_a_clock_of_the_wall() -> None:
    folder = Path(clock.__file__).parent
    reads = ("time.time(", "datetime.now(", "utcnow(", "time.time_ns(")
    found = [
        file.name
        for file in folder.glob("*.py")
        if any(read in file.read_text() for read in reads) and file.name != "clock.py"
    ]
    assert found == []
