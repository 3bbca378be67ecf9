"""The Grid of a whole ServerApp: every exchange goes through the aggregator, which keeps it.

Contents lie in files by their sha256; the same content to many nodes is written once.
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, Protocol

from flwr.app import DEFAULT_TTL, Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from flowerbed.flower_apps.contents import SERVER_NODE, decoded, encoded
from flowerbed.flower_apps.determinism import Clock
from flowerbed.flower_apps.differences import differences
from flowerbed.flower_apps.grid_pipe import (
    EMPTY_PULL_SECONDS,
    HINT,
    Answer,
    Differs,
    Hello,
    Pull,
    Push,
    Reply,
    Scalar,
    Sent,
)
from flowerbed.flower_apps.outcome import Outcome
from flowerbed.flower_apps.spooling import spool

BAD_REPLY = 4
"""Flower's REPLY_MESSAGE_UNAVAILABLE: what came cannot be read."""
_EPOCHS = ("local-epochs", "local_epochs", "epochs", "num-epochs")


class NotDeterministic(BaseException):
    """`main` did something else than in its first run. No app's own handler should swallow it."""


class Line(Protocol):
    """The way to the aggregator."""

    def number(self) -> int: ...

    def ask(self, call: Push | Pull) -> Answer | Differs: ...


class ReplayedGrid(Grid):
    """Flower's whole interface."""

    def __init__(self, hello: Hello, line: Line, clock: Clock, outcome: Outcome) -> None:
        self._hello, self._line, self._clock, self._outcome = hello, line, clock, outcome
        self._run = Run.create_empty(hello.run_id)
        self._sent: dict[str, Metadata] = {}
        self._n_empty = threading.local()

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(
            content,
            dst_node_id,
            message_type,
            ttl=DEFAULT_TTL if ttl is None else ttl,
            group_id=group_id,
        )

    def get_node_ids(self) -> Iterable[int]:
        """The same from the first call to the last: who is joined when `main` starts."""
        return list(self._hello.node_ids)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._push(messages, None)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._pull(message_ids, waits=False, timeout=None)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """The replies are in the order of their messages, not of their arrival."""
        ids = self._push(messages, timeout)
        return self._pull(ids, waits=True, timeout=timeout) if ids else []

    def _push(self, messages: Iterable[Message], timeout: float | None) -> list[str]:
        sent = list(messages)
        if not sent:
            return []
        written: dict[int, tuple[str, int]] = {}
        lines = [self._line_of(message, written) for message in sent]
        answer = self._asked(
            Push(
                call=self._line.number(),
                at=self._clock.time(),
                n_empty=self._taken_empty(),
                is_main=_is_main(),
                messages=tuple(lines),
                timeout=timeout,
            )
        )
        for message, message_id in zip(sent, answer.ids, strict=True):
            about = message.metadata.__dict__  # as Flower's own Grids fill it in
            about["_message_id"], about["_run_id"] = message_id, self._hello.run_id
            about["_src_node_id"] = SERVER_NODE
            self._sent[message_id] = message.metadata
            self._outcome.sent(message)
        return list(answer.ids)

    def _line_of(self, message: Message, written: dict[int, tuple[str, int]]) -> Sent:
        content, about = message.content, message.metadata
        if id(content) not in written:
            written[id(content)] = spool(encoded(content), Path(self._hello.outbox))
        sha256, size = written[id(content)]
        return Sent(
            node_id=about.dst_node_id,
            message_type=about.message_type,
            group_id=about.group_id,
            ttl=about.ttl,
            sha256=sha256,
            size=size,
            config=_passes(content),
        )

    def _pull(
        self, message_ids: Iterable[str], *, waits: bool, timeout: float | None
    ) -> list[Message]:
        answer = self._asked(
            Pull(
                call=self._line.number(),
                at=self._clock.time(),
                n_empty=self._n_empty.__dict__.get("n", 0),
                is_main=_is_main(),
                ids=tuple(message_ids),
                waits=waits,
                timeout=timeout,
            )
        )
        if not answer.replies and not waits:
            self._n_empty.n = self._n_empty.__dict__.get("n", 0) + 1
            self._clock.pass_by(EMPTY_PULL_SECONDS)
            return []
        self._taken_empty()
        return [self._message(reply) for reply in answer.replies]

    def _taken_empty(self) -> int:
        n: int = self._n_empty.__dict__.get("n", 0)
        self._n_empty.n = 0
        return n

    def _asked(self, call: Push | Pull) -> Answer:
        answer = self._line.ask(call)
        if isinstance(answer, Differs):
            self._differ(answer)
        self._clock.set(answer.at)
        self._clock.is_replayed = answer.is_replayed
        return answer

    def _differ(self, answer: Differs) -> NoReturn:
        text = answer.text
        if answer.was is not None and answer.now is not None:
            was = decoded((Path(self._hello.inbox) / answer.was).read_bytes())
            now = decoded((Path(self._hello.outbox) / answer.now).read_bytes())
            text = f"{text}: {differences(was, now)}"
        raise NotDeterministic(f"{text}. {HINT}")

    def _message(self, reply: Reply) -> Message:
        asked = self._sent.get(reply.message_id)
        about = Metadata(
            run_id=self._hello.run_id,
            message_id=f"reply-{reply.message_id}",
            src_node_id=reply.node_id,
            dst_node_id=SERVER_NODE,
            reply_to_message_id=reply.message_id,
            group_id="" if asked is None else asked.group_id,
            created_at=time.time(),
            ttl=DEFAULT_TTL if asked is None else asked.ttl,
            message_type="query" if asked is None else asked.message_type,
        )
        if reply.sha256 is None:
            return make_message(about, error=Error(code=reply.error, reason=reply.reason))
        try:
            content = decoded((Path(self._hello.inbox) / reply.sha256).read_bytes())
        except Exception as error:  # whatever a site may have put there
            reason = f"the reply cannot be read: {type(error).__name__}"
            return make_message(about, error=Error(code=BAD_REPLY, reason=reason))
        return make_message(about, content)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _passes(content: RecordDict) -> dict[str, Scalar]:
    """What the message asks for of passes over the data: a site's limits count them."""
    for record in content.config_records.values():
        for name in _EPOCHS:
            value = record.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return {"local-epochs": value}
    return {}
