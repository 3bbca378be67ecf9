"""An event as a message and back, and marks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.events.message import Malformed, Mark, Message, envelope, received
from tests.support.garden import codec

HEADERS = {
    "ce-id": "00000000-0000-0000-0000-000000000001", "ce-type": "fl.client.joined",
    "ce-subject": "bed-1", "ce-time": "2026-01-01T12:00:00+00:00", "schemaversion": "1",
    "streamversion": "2", "tenant": "roses", "correlationid": "fed-1", "Fl-Pos": "1:2:7",
}  # fmt: skip

numbers = st.integers(0, 2**63 - 1)


def message(**changes: str | None) -> Message:
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changes.items()}
    return Message(
        subject="fl.client.joined.roses.fed-1",
        headers={name: value for name, value in headers.items() if value is not None},
        data=b'{"litres": 3}',
    )


def test_message_is_read_as_its_owner_recorded_it() -> None:
    recorded = received(message(), codec)
    assert (recorded.stream, recorded.version, recorded.position) == ("bed-1", 2, 7)
    assert recorded.consequence().causation_id == HEADERS["ce-id"]
    assert recorded.consequence().correlation_id == "fed-1"


def test_lane_is_the_federation_or_else_the_stream() -> None:
    assert envelope(message()).lane == "fed-1"
    assert envelope(message(correlationid="_")).lane == "bed-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": None}, {"streamversion": "two"}, {"ce_id": "x"}, {"ce_time": "noon"},
        {"Fl_Pos": "1:2"}, {"ce_time": None},
    ],
)  # fmt: skip
def test_message_without_what_every_event_has_is_malformed(
    changes: dict[str, str | None],
) -> None:
    with pytest.raises(Malformed):
        received(message(**changes), codec)


@given(lo=numbers, hi=numbers, gpos=numbers)
def test_mark_is_read_as_it_was_written(lo: int, hi: int, gpos: int) -> None:
    assert Mark.parse(str(Mark(lo, hi, gpos))) == Mark(lo, hi, gpos)
