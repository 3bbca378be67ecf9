"""The messages of a whole ServerApp on their way: who was sent what, until when, what came back."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.projections.messages import answers
from flowerbed.contracts.server_app import (
    MessageAnswered,
    MessagesPulled,
    MessagesPushed,
    PushedMessage,
)
from flowerbed.contracts.update import CLIENT_LEFT
from flowerbed.events.wakeup import Wakeup

LOOK_SECONDS = 2.0
"""How often to look for what another replica's consumer was told."""
GRACE_SECONDS = 30.0
"""How long after a deadline a reply made in time may be on its way to us."""

APP_RAISED, NO_REPLY, NODE_UNAVAILABLE, REFUSED = 2, 4, 5, 6
"""Flower's error codes."""
_ERRORS = {"app-failed": APP_RAISED, "bad-reply": APP_RAISED, CLIENT_LEFT: NODE_UNAVAILABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    message: PushedMessage
    round_number: int
    deadline_at: datetime


@dataclass(slots=True)
class Mailbox:
    bridge: Bridge
    federation_id: str
    wakeup: Wakeup
    _sent: dict[str, Sent] = field(default_factory=dict)
    _answers: dict[str, MessageAnswered] = field(default_factory=dict)
    _closed: set[int] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def sent(self, pushed: MessagesPushed) -> None:
        for message in pushed.cohort:
            self._sent[message.message_id] = Sent(
                message=message,
                round_number=pushed.round_number,
                deadline_at=pushed.deadline_at,
            )

    def of(self, message_id: str) -> Sent | None:
        return self._sent.get(message_id)

    def n_open(self, number: int, handed: Collection[str]) -> int:
        """Of an exchange, messages whose replies are neither handed over nor are now."""
        return sum(
            sent.round_number == number and key not in handed for key, sent in self._sent.items()
        )

    def answer(self, message_id: str) -> MessageAnswered | None:
        return self._answers.get(message_id)

    def closed_by(self, ids: Iterable[str], handed: Collection[str], *, is_last: bool) -> list[int]:
        """Exchanges of these messages that are over once `handed` are handed over; each once.

        `is_last`: nobody will ask for what is still to come of them.
        """
        numbers = {sent.round_number for one in ids if (sent := self.of(one))} - self._closed
        return sorted(one for one in numbers if is_last or self.n_open(one, handed) == 0)

    def handed(self, pulled: MessagesPulled) -> None:
        self._closed.update(pulled.closes)
        for reply in pulled.replies:
            self._sent.pop(reply.message_id, None)
            self._answers.pop(reply.message_id, None)

    def is_due(self, message_id: str, at: datetime) -> bool:
        """Answered, unknown, or past its deadline."""
        sent = self._sent.get(message_id)
        return sent is None or message_id in self._answers or at >= sent.deadline_at

    async def wait(self, ids: Collection[str], seconds: float) -> None:
        """Until all are answered, at most so long."""
        try:
            async with asyncio.timeout(max(0.0, seconds)), self._changed:
                await self._changed.wait_for(lambda: all(self._is_known(one) for one in ids))
        except TimeoutError:
            return

    async def wait_past(self, ids: Iterable[str]) -> None:
        """Past the deadline: until each report made in time has reached us, within reason."""
        end = asyncio.get_running_loop().time() + GRACE_SECONDS
        missing = [one for one in ids if not self._is_known(one)]
        while missing and asyncio.get_running_loop().time() < end:
            if await self.bridge.has_heard_all(self.federation_id):
                await self.look()
                return
            await self.wait(missing, 0.2)

    async def run(self) -> None:
        """For ever: hear what was answered."""
        while True:
            await self.wakeup.wait(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        numbers = {
            sent.round_number for key, sent in self._sent.items() if key not in self._answers
        }
        if not numbers:
            return
        by_place = {
            (sent.round_number, sent.message.client_id): key for key, sent in self._sent.items()
        }
        for found in await answers(self.bridge.database, self.federation_id, numbers):
            if key := by_place.get((found.round_number, found.client_id)):
                self._answers.setdefault(key, found)
        async with self._changed:
            self._changed.notify_all()

    def _is_known(self, message_id: str) -> bool:
        return message_id in self._answers or message_id not in self._sent


def error_of(answer: MessageAnswered | None) -> tuple[int, str]:
    """As Flower would say that there is no content."""
    if answer is None:
        return NO_REPLY, "no reply by the deadline"
    words = f"{answer.code}: {answer.detail}" if answer.detail else answer.code
    return _ERRORS.get(answer.code, REFUSED), words
