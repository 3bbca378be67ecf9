"""Many messages at once, as NATS wants them on the wire.

The client library encodes and checks each message by itself, which costs more than all the rest of
relaying it. What stands here does the same for a whole batch, and hands it over as one piece.
"""

import re
from collections.abc import Iterable
from typing import Any

from flowerbed.events.message import Malformed, Message

_HEAD = "NATS/1.0\r\n"
_ONE_LINE = {ord("\r"): " ", ord("\n"): " "}
_SUBJECT = re.compile(r"[!-~]+")


def published(message: Message, more: str = "") -> bytes:
    """The message as `HPUB` (NATS protocol); `more`: further header lines, each with its CRLF.

    Raises:
        Malformed: the subject is none.
    """
    lines = [f"{name}: {value}\r\n" for name, value in message.headers.items()]
    text = "".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines):
        named = message.headers.items()
        text = "".join(f"{name}: {value.translate(_ONE_LINE)}\r\n" for name, value in named)
    if _SUBJECT.fullmatch(message.subject) is None:
        raise Malformed(f"{message.subject!r} is no subject")
    head, data = f"{_HEAD}{text}{more}\r\n".encode(), message.data
    sizes = f"HPUB {message.subject} {len(head)} {len(head) + len(data)}\r\n".encode()
    return b"".join((sizes, head, data, b"\r\n"))


def answers(tokens: Iterable[str], answer: bytes) -> bytes:
    """`answer` as `PUB` to each of the reply subjects that the server gave out."""
    size = len(answer)
    end = b" %d\r\n%b\r\n" % (size, answer)
    return b"".join(b"PUB %b%b" % (token.encode(), end) for token in tokens)


async def send(client: Any, encoded: bytes) -> None:
    """Hand over what is encoded already. The library has no public way for it; its version is
    pinned, and `tests/integration/events` sees what arrives."""
    if encoded:
        await client._send_command(encoded)
        await client._flush_pending()
