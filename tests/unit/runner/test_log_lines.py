"""Log lines on their way out: whole, bounded, scrubbed, numbered, and never in the way."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerbed.contracts.door import LONGEST_LOG_LINE, MOST_LOG_LINES, LogBatch
from flowerbed.runner import log_lines, patience
from flowerbed.runner.errors import DoorRefused, NotReachable, RunnerError
from flowerbed.runner.log_lines import KEPT, LogLines, Splitter
from flowerbed.runner.scrub import Scrubber
from tests.support.servers import eventually


class Door:
    """Takes batches, or fails as a test says."""

    def __init__(self) -> None:
        self.batches: list[LogBatch] = []
        self.faults: list[RunnerError] = []

    async def take(self, batch: LogBatch) -> None:
        self.batches.append(batch)
        if self.faults:
            raise self.faults.pop(0)

    @property
    def texts(self) -> list[str]:
        return [line.text for batch in self.batches for line in batch.lines]


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "GATHER_SECONDS", 0.001)
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.001)


def lines_to(door: Door, scrubber: Callable[[], Callable[[str], str]] | None) -> LogLines:
    return LogLines(door.take, scrubber, epoch=3)


def as_it_is() -> Callable[[str], str]:
    return str


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\nt", b"wo\n"], ["one", "two"]),
        ([b"\x1b[92mINFO \x1b[0m:  fine\n"], ["INFO :  fine"]),
        ([b" 10%\r 50%\r100%\n"], ["100%"]),
        ([b"dos\r\n\n\nend\n"], ["dos", "end"]),
        ([b"\xff bytes\n"], ["\ufffd bytes"]),
    ],
)
def test_output_becomes_lines(pieces: list[bytes], expected: list[str]) -> None:
    splitter = Splitter()
    assert [line for piece in pieces for line in splitter.lines(piece)] == expected


def test_a_line_without_an_end_takes_no_more_memory_than_is_looked_at() -> None:
    splitter = Splitter()
    for _ in range(100):
        assert splitter.lines(b"x" * 5_000) == []
    (line,) = splitter.last()
    assert len(line) == log_lines.LONGEST_RAW
    assert splitter.last() == []


async def test_lines_go_out_in_order_with_numbers(door: Door) -> None:
    lines = lines_to(door, as_it_is)
    lines.take(b"".join(b"line %d\n" % number for number in range(MOST_LOG_LINES + 5)))
    await lines.close()
    assert [len(batch.lines) for batch in door.batches] == [MOST_LOG_LINES, 5]
    numbers = [line.number for batch in door.batches for line in batch.lines]
    assert numbers == list(range(1, MOST_LOG_LINES + 6))
    assert {(batch.epoch, batch.run) for batch in door.batches} == {(3, door.batches[0].run)}
    assert door.texts[-1] == f"line {MOST_LOG_LINES + 4}"


async def test_a_batch_that_was_not_answered_goes_out_again_as_it_was(door: Door) -> None:
    door.faults = [NotReachable("away")]
    lines = lines_to(door, as_it_is)
    lines.take(b"one\n")
    shipping = asyncio.create_task(lines.ship())
    await eventually(lambda: len(door.batches) >= 2, "the batch comes again")
    shipping.cancel()
    assert door.batches[0] == door.batches[1]


async def test_too_many_at_once_are_counted_and_said(door: Door) -> None:
    lines = lines_to(door, as_it_is)
    lines.take(b"x\n" * (log_lines.BURST + 37))
    await lines.close()
    *said, last = [line for batch in door.batches for line in batch.lines]
    assert (len(said), {line.kind for line in said}) == (log_lines.BURST, {"line"})
    assert last.kind == "left-out" and last.text.startswith("37 lines left out")


async def test_a_lease_has_so_many_lines_in_all(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "PER_LEASE", 3)
    lines = lines_to(door, as_it_is)
    lines.take(b"1\n2\n3\n4\n5\n")
    lines.take(b"6\n")
    await lines.close()
    assert door.texts[:3] == ["1", "2", "3"]
    assert door.texts[3:] == ["3 lines under this lease: the site keeps the rest"]


async def test_what_nobody_takes_waits_for_no_more_than_its_room(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "MOST_WAITING", 5)
    lines = lines_to(door, as_it_is)
    lines.take(b"x\n" * 50)
    await lines.close()
    assert door.texts == ["x"] * 5 + ["45 lines left out: too many at once"]


async def test_a_long_line_is_cut(door: Door) -> None:
    lines = lines_to(door, as_it_is)
    lines.take(b"x" * 3_000 + b"\n")
    await lines.close()
    assert len(door.texts[0]) == LONGEST_LOG_LINE and door.texts[0].endswith("x…")


async def test_lines_are_scrubbed_before_they_are_cut(door: Door) -> None:
    secret = "/srv/" + "ward" * 300 + "/rows.csv"
    lines = lines_to(door, lambda: Scrubber(Path("/srv/data"), {"rows.csv"}))
    lines.take(f"cannot open {secret}\nrows.csv of anna@hospital.example\n".encode())
    await lines.close()
    assert door.texts == ["cannot open <path>", "<name> of <mail>"]


async def test_a_site_that_keeps_its_lines_says_so_once_and_nothing_else(door: Door) -> None:
    lines = lines_to(door, None)
    lines.take(b"a secret\n")
    await lines.close()
    assert [(line.kind, line.text) for batch in door.batches for line in batch.lines] == [
        ("kept", KEPT)
    ]


async def test_a_door_that_takes_no_lines_ends_it_and_nothing_else(door: Door) -> None:
    door.faults = [DoorRefused(404, "not-found", "no such route")]
    lines = lines_to(door, as_it_is)
    lines.take(b"one\n")
    await asyncio.wait_for(lines.ship(), 5)
    lines.take(b"two\n" * 10_000)
    await lines.close()
    assert door.texts == ["one"]


async def test_shipping_ends_when_it_is_cancelled_while_some_work_ends(door: Door) -> None:
    for _ in range(20):
        lines = lines_to(door, as_it_is)
        lines.take(b"one\n")
        shipping = asyncio.create_task(lines.ship())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        lines.hurry()
        shipping.cancel()
        await asyncio.wait({shipping}, timeout=2)
        assert shipping.cancelled()


async def test_closing_waits_for_nobody(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LAST_WORDS_SECONDS", 0.01)

    async def never(batch: LogBatch) -> None:
        await asyncio.Event().wait()

    lines = LogLines(never, as_it_is, epoch=1)
    lines.take(b"one\n")
    await asyncio.wait_for(lines.close(), 5)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["-", "a", ".", "a/", "'"])
def test_scrubbing_does_not_hang_on_text_made_to_be_slow(text: str) -> None:
    """What backtracks over so much, be it only in the square of its length, takes hours."""
    assert Scrubber(Path("/srv/data"), {"rows.csv"})(text * (1 << 20))
