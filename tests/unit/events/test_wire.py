"""What is encoded by the batch reads as what the client library would have sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from flowerbed.events.message import Malformed, Message
from flowerbed.events.relay import BUSY_RATE, _Pace
from flowerbed.events.wire import answers, published

VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)


class Sink:
    """Keeps what the library hands over to its connection."""

    def __init__(self) -> None:
        self.client = Client()
        self.sent = b""
        self.client._send_command = self._keep  # type: ignore[method-assign]

    async def _keep(self, cmd: bytes, priority: bool = False) -> None:
        self.sent += cmd


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=8), st.binary(max_size=50))
async def test_a_message_is_encoded_as_the_library_does_it(
    headers: dict[str, str], data: bytes
) -> None:
    headers = {name: value.strip() for name, value in headers.items()}
    sink = Sink()
    await sink.client._send_publish("fl.a.b", "", data, len(data), headers)

    assert published(Message(subject="fl.a.b", headers=headers, data=data)) == sink.sent.replace(
        b"fl.a.b  ", b"fl.a.b ", 1
    ), "but for the space where a reply subject may stand"


def test_a_value_of_several_lines_stays_one_header() -> None:
    found = published(Message(subject="s", headers={"a": "x\r\nb: y", "c": "z"}, data=b""))
    assert b"\r\na: x  b: y\r\nc: z\r\n\r\n" in found


def test_further_headers_stand_behind_the_messages_own() -> None:
    found = published(Message(subject="s", headers={"a": "x"}, data=b"d"), "b: y\r\n")
    assert found == b"HPUB s 24 25\r\nNATS/1.0\r\na: x\r\nb: y\r\n\r\nd\r\n"


def test_a_subject_of_several_words_is_refused() -> None:
    with pytest.raises(Malformed, match="is no subject"):
        published(Message(subject="s 0\r\nPUB", headers={"a": "x"}, data=b""))


def test_every_delivery_is_answered() -> None:
    assert answers(["a", "b"], b"+ACK") == b"PUB a 4\r\n+ACK\r\nPUB b 4\r\n+ACK\r\n"
    assert answers([], b"+ACK") == b""


def test_a_relay_is_busy_while_many_events_come() -> None:
    pace = _Pace()
    many = int(BUSY_RATE * pace.WINDOW)
    pace.relayed(many - 1, now=10.0)
    assert not pace.is_busy(10.05)
    pace.relayed(1, now=10.06)
    assert pace.is_busy(10.07)
    assert pace.is_busy(10.15), "the last whole window counts while the next fills"
    assert not pace.is_busy(10.31), "nothing came for a whole window"
