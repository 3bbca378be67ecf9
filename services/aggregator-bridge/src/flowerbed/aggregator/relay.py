"""Carries a federation's work to its clients through a Flower Grid, and their answers back.

    lease service ── order ───> Relay ── Message ──> Grid ──> ClientApp
                  <── report ──        <── reply ───      <──
                                 └── update ──> S3

A relay keeps nothing of its own: one that was killed is started again, hears of all the work that
is still open, and sends it out again. Whatever is answered twice counts once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flwr.app import ArrayRecord, Message
from flwr.common.constant import ErrorCode

from flowerbed.aggregator.relay_answers import answer_of
from flowerbed.aggregator.relay_works import FederationOver, Works
from flowerbed.artifact.blobs import Blobs
from flowerbed.contracts.relay import RelayAnswer, RelayOrder
from flowerbed.events.errors import Unavailable
from flowerbed.flower_apps.messages import message_of, read_arrays

logger = logging.getLogger(__name__)

POLL_SECONDS = 30.0
FIRST_WAIT, LAST_WAIT = 0.2, 5.0
SURE_SECONDS = 2.0
"""By so much may what is known of a node's last moment without work be wrong."""
SENT_AGAIN_SECONDS = 3.0
"""After Flower lost a message, or did not take it."""
LOST = frozenset(
    (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
)
AT_ONCE = 4
"""Replies that are written and stored at the same time."""


class Grid(Protocol):
    """As much of `flwr.serverapp.Grid` as a relay needs."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]: ...

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]: ...


@dataclass(slots=True)
class _Sent:
    """An order, and the messages that carry it: one, or more where one seemed lost."""

    order: RelayOrder
    message_ids: list[str] = field(default_factory=list)
    due_at: float = 0.0
    """On the monotonic clock: when it is to be sent, or sent again."""
    sent_at: float = 0.0


def _never(client_id: str) -> float | None:
    return None


class Relay:
    """Of one federation. `nodes`: Flower's node of each client that can be reached now.

    `idle_since`: when, on the monotonic clock, a client's node was last seen without any work: what
    was sent to it before then and has no reply is lost.

    `pace`: seconds between two looks for replies. `patience`: seconds after which a message that
    nobody answered is sent again; None where no message is ever lost.
    """

    def __init__(
        self,
        grid: Grid,
        works: Works,
        nodes: Mapping[str, int],
        blobs: Blobs,
        folder: Path,
        *,
        pace: float = 0.05,
        patience: float | None = None,
        idle_since: Callable[[str], float | None] = _never,
    ) -> None:
        self._grid = grid
        self._works = works
        self._nodes = nodes
        self._blobs = blobs
        self._folder = folder
        self._pace = pace
        self._patience = patience
        self._idle_since = idle_since
        self._looked_at = 0.0
        self._sent: dict[str, _Sent] = {}
        self._bases: dict[str, ArrayRecord] = {}

    async def run(self) -> None:
        """Until the federation is over.

        Raises:
            Exception: whatever the grid raises; a new relay takes up what is open.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_orders())
                tasks.create_task(self._carry())
        except* FederationOver:
            logger.info("the federation is over: the relay ends")

    async def _take_orders(self) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                found = await self._works.next(list(self._sent), POLL_SECONDS)
            except Unavailable as error:
                logger.warning("no orders: %s", error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LAST_WAIT)
                continue
            wait = FIRST_WAIT
            for work_id in found.closed:
                self._sent.pop(work_id, None)
            for order in found.orders:
                self._sent.setdefault(order.work_id, _Sent(order))

    async def _carry(self) -> None:
        while True:
            await self._send()
            answers = await self._answers(await asyncio.to_thread(self._pull))
            if answers:
                await self._leave(answers)
            self._forget_bases()
            await asyncio.sleep(self._pace)

    async def _send(self) -> None:
        """Whatever is due, to clients that can be reached."""
        now = time.monotonic()
        for sent in tuple(self._sent.values()):
            node = self._nodes.get(sent.order.client_id)
            if node is None or (now < sent.due_at and not self._is_lost(sent)):
                continue
            arrays = await self._base(sent.order)
            if arrays is None:
                return  # the store is away: all of them need it
            if sent.message_ids:
                logger.warning("%s was not answered: sent again", sent.order.work_id)
            message_id = await asyncio.to_thread(self._push, sent.order, arrays, node)
            patience = float("inf") if self._patience is None else self._patience
            if message_id:
                sent.message_ids.append(message_id)
            else:
                logger.warning("the grid did not take %s", sent.order.work_id)
                patience = SENT_AGAIN_SECONDS
            sent.sent_at = time.monotonic()
            sent.due_at = sent.sent_at + patience

    def _is_lost(self, sent: _Sent) -> bool:
        """The node was idle after the order was sent, and a later look has found no reply."""
        idle = self._idle_since(sent.order.client_id)
        if idle is None or not sent.message_ids:
            return False
        return sent.sent_at + SURE_SECONDS < idle < self._looked_at

    def _push(self, order: RelayOrder, arrays: ArrayRecord, node: int) -> str | None:
        config = {**order.config, "seed": order.seed, "server-round": order.round_number}
        message = message_of(arrays, config, order.message_type, node)
        return next(iter(self._grid.push_messages([message])), None)

    def _pull(self) -> list[tuple[_Sent, Message]]:
        """The first reply to each order that was answered since the last look."""
        sent_by = {
            message_id: sent
            for sent in tuple(self._sent.values())
            for message_id in sent.message_ids
        }
        if not sent_by:
            return []
        looks_at = time.monotonic()
        found: dict[str, tuple[_Sent, Message]] = {}
        for reply in self._grid.pull_messages(list(sent_by)):
            sent = sent_by.get(reply.metadata.reply_to_message_id)
            if sent is None:
                continue
            if reply.has_error() and reply.error.code in LOST:
                logger.warning("%s is lost: %s", sent.order.work_id, reply.error.reason)
                sent.message_ids.remove(reply.metadata.reply_to_message_id)
                sent.due_at = min(sent.due_at, time.monotonic() + SENT_AGAIN_SECONDS)
                continue
            found.setdefault(sent.order.work_id, (sent, reply))
        self._looked_at = looks_at
        return list(found.values())

    async def _answers(self, replies: list[tuple[_Sent, Message]]) -> list[RelayAnswer]:
        """The updates of these replies lie in the store when this returns."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(order: RelayOrder, reply: Message) -> RelayAnswer:
            async with turns:
                return await self._patiently(order, reply)

        return await asyncio.gather(*(one(sent.order, reply) for sent, reply in replies))

    async def _patiently(self, order: RelayOrder, reply: Message) -> RelayAnswer:
        wait = FIRST_WAIT
        while True:
            try:
                return await asyncio.to_thread(answer_of, order, reply, self._blobs, self._folder)
            except Unavailable as error:
                logger.warning("%s cannot be stored yet: %s", order.work_id, error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LAST_WAIT)

    async def _leave(self, answers: list[RelayAnswer]) -> None:
        wait = FIRST_WAIT
        while True:
            try:
                refused = await self._works.answer(answers)
                break
            except Unavailable as error:
                logger.warning("%d answers wait: %s", len(answers), error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LAST_WAIT)
        for one in refused:
            logger.info("%s is answered in vain: %s: %s", one.work_id, one.code, one.detail)
        for answer in answers:
            self._sent.pop(answer.work_id, None)

    async def _base(self, order: RelayOrder) -> ArrayRecord | None:
        """The checkpoint that the order starts from, read once for all; None: not to be had yet."""
        sha256 = order.base.sha256
        if sha256 not in self._bases:
            try:
                self._bases[sha256] = await asyncio.to_thread(self._fetch, order)
            except Unavailable as error:
                logger.warning("the base of %s is not to be had yet: %s", order.work_id, error)
                return None
        return self._bases[sha256]

    def _fetch(self, order: RelayOrder) -> ArrayRecord:
        path = self._folder / f"base-{order.base.sha256}.safetensors"
        self._blobs.download(order.base.uri, path, sha256=order.base.sha256)
        try:
            return read_arrays(path)
        finally:
            path.unlink()

    def _forget_bases(self) -> None:
        used = {sent.order.base.sha256 for sent in self._sent.values()}
        for sha256 in self._bases.keys() - used:
            del self._bases[sha256]
