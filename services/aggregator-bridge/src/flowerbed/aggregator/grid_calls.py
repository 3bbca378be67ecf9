"""What a ServerApp asks of its Grid, answered: from the journal, or by its nodes.

A push is recorded before anybody may hear of it, a pull before the app sees it.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from flowerbed.aggregator.bridge import Bridge
from flowerbed.aggregator.exchange_log import WorkerLog
from flowerbed.aggregator.journal import (
    Journal,
    JournalCommand,
    JournalEvent,
    PullReplies,
    PushMessages,
)
from flowerbed.aggregator.mailbox import NO_REPLY, Mailbox, error_of
from flowerbed.aggregator.projections.exchanges import Asked
from flowerbed.aggregator.replay import Difference, Nothing, Replay
from flowerbed.artifact.blobs import DigestDiffers, TooLarge
from flowerbed.contracts.ids import derive_seed
from flowerbed.contracts.policy import Budget
from flowerbed.contracts.server_app import (
    MessagesPulled,
    MessagesPushed,
    PulledReply,
    PushedMessage,
    ServerAppStarted,
)
from flowerbed.contracts.values import ArtifactRef
from flowerbed.events.errors import NotFound, Unavailable
from flowerbed.flower_apps.grid_pipe import (
    EMPTY_PULL_SECONDS,
    Answer,
    Differs,
    Pull,
    Push,
    Reply,
    Sent,
)

T = TypeVar("T")
JournalLog = WorkerLog[Journal, JournalCommand, JournalEvent]
LARGEST_REPLY = 2 << 30
"""Bytes: what protobuf can hold."""
FIRST_WAIT, LAST_WAIT = 0.2, 5.0


@dataclass(slots=True)
class GridCalls:
    bridge: Bridge
    asked: Asked
    serving: ServerAppStarted
    log: JournalLog
    replay: Replay
    mailbox: Mailbox
    inbox: Path
    outbox: Path
    _recording: asyncio.Lock = field(default_factory=asyncio.Lock)
    _given: list[Path] = field(default_factory=list)
    _n_sent: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for entry in self.log.state.entries:
            if isinstance(entry, MessagesPushed):
                self._n_sent.update(message.place for message in entry.cohort)

    async def answer(self, call: Push | Pull) -> Answer | Differs:
        try:
            if isinstance(call, Push):
                return await self._push(call)
            return await self._pull(call)
        except Difference as difference:
            if difference.was is not None:
                await self._fetched(self._content(difference.was), difference.was)
            return Differs(
                call=call.call, text=difference.text, was=difference.was, now=difference.now
            )

    # --- pushes -------------------------------------------------------------

    async def _push(self, call: Push) -> Answer:
        ids: list[str] = []
        at = call.at
        if call.is_main:
            self._forget()
        for batch in _batches(call.messages):
            pushed = self.replay.push(call, batch)
            if pushed is None:
                pushed = await self._send(call, batch)
            self.mailbox.sent(pushed)
            ids += [message.message_id for message in pushed.cohort]
            at = pushed.at
        if call.is_main:  # another thread may send the same content this moment
            for sha256 in {sent.sha256 for sent in call.messages}:
                (self.outbox / sha256).unlink(missing_ok=True)
        return Answer(call=call.call, at=at, ids=tuple(ids), is_replayed=not self.replay.is_over)

    async def _send(self, call: Push, batch: Sequence[Sent]) -> MessagesPushed:
        stored = {sent.sha256: await self._stored(sent.sha256) for sent in batch}
        async with self._recording:
            nodes = node_ids(self.serving)
            places = [nodes.index(sent.node_id) for sent in batch]
            now = self.bridge.clock()
            command = PushMessages(
                federation_id=self.serving.federation_id,
                cohort=tuple(
                    self._message(sent, place, stored[sent.sha256])
                    for sent, place in zip(batch, places, strict=True)
                ),
                n_nodes=len(nodes),
                deadline_at=now + timedelta(seconds=self._seconds(call, batch)),
                at=max(call.at, now.timestamp()),
                n_empty=call.n_empty,
                is_main=call.is_main,
            )
            await self._record(command)
            pushed = self.log.state.entries[-1]
            self._n_sent.update(places)
        assert isinstance(pushed, MessagesPushed)
        return pushed

    def _message(self, sent: Sent, place: int, content: ArtifactRef) -> PushedMessage:
        """Named and seeded by how many its node got before: threads may send in any order."""
        member, seed = self.serving.nodes[place], self.serving.seed
        number = self._n_sent[place]
        return PushedMessage(
            client_id=member.client_id,
            lease_id=member.lease_id,
            lease_epoch=member.lease_epoch,
            seed=derive_seed(seed, "message", number, place),
            place=place,
            node_id=sent.node_id,
            message_id=_message_id(seed, number, place),
            message_type=sent.message_type,
            group_id=sent.group_id,
            ttl=sent.ttl,
            content=content,
            config=sent.config,
        )

    def _seconds(self, call: Push, batch: Sequence[Sent]) -> float:
        limits = [self._budget_seconds, *(sent.ttl for sent in batch)]
        if call.timeout is not None:
            limits.append(call.timeout)
        return max(1.0, min(limits))

    async def _stored(self, sha256: str) -> ArtifactRef:
        to = self.asked.spec.spec.artifacts
        key, path = f"{to.prefix}/messages/{sha256}.recorddict", self.outbox / sha256

        async def store() -> ArtifactRef:
            put = self.bridge.blobs.put_if_absent
            return await asyncio.to_thread(put, to.bucket, key, path, sha256)

        return await patiently(store)

    # --- pulls --------------------------------------------------------------

    async def _pull(self, call: Pull) -> Answer:
        found = self.replay.pull(call)
        if isinstance(found, Nothing):
            return Answer(call=call.call, at=call.at, is_replayed=True)
        if found is None:
            found = await self._receive(call) if call.waits else await self._look(call)
        if found is None:
            return Answer(call=call.call, at=call.at)
        self.mailbox.handed(found)
        return Answer(
            call=call.call,
            at=found.at,
            replies=tuple([await self._handed(reply) for reply in found.replies]),
            is_replayed=not self.replay.is_over,
        )

    async def _look(self, call: Pull) -> MessagesPulled | None:
        """What has come by now, with a short wait for it."""
        open_ids = [one for one in call.ids if self.mailbox.of(one) is not None]
        if not open_ids:
            await asyncio.sleep(EMPTY_PULL_SECONDS)
            return None
        is_due = self.mailbox.is_due
        if not any(is_due(one, self.bridge.clock()) for one in open_ids):
            await self.mailbox.look()
            await self.mailbox.wait(open_ids, EMPTY_PULL_SECONDS)
        due = [one for one in open_ids if is_due(one, self.bridge.clock())]
        if not due:
            return None
        await self.mailbox.wait_past(due)
        return await self._take(call, due)

    async def _receive(self, call: Pull) -> MessagesPulled:
        """All of them, or what there is at the deadline."""
        sent = [found for one in call.ids if (found := self.mailbox.of(one)) is not None]
        if sent:
            await self.mailbox.look()
            deadline_at = max(one.deadline_at for one in sent)
            await self.mailbox.wait(call.ids, (deadline_at - self.bridge.clock()).total_seconds())
            await self.mailbox.wait_past(call.ids)
        is_apps_own = call.timeout is not None and call.timeout < self._budget_seconds
        due = [one for one in call.ids if self.mailbox.answer(one) is not None or not is_apps_own]
        return await self._take(call, due)

    async def _take(self, call: Pull, due: Sequence[str]) -> MessagesPulled:
        """Hand these over, in the order in which they are asked for: recorded first."""
        replies = tuple([await self._reply(one) for one in due if self.mailbox.of(one)])
        numbers = [sent.round_number for one in call.ids if (sent := self.mailbox.of(one))]
        number = max(numbers, default=max(1, self.log.state.n_exchanges))
        handed = {reply.message_id for reply in replies}
        async with self._recording:
            closed = self.mailbox.closed_by(call.ids, handed, is_last=call.waits)
            command = PullReplies(
                federation_id=self.serving.federation_id,
                round_number=number,
                replies=replies,
                n_open=0 if call.waits else self.mailbox.n_open(number, handed),
                closed=tuple(closed),
                at=max(call.at, self.bridge.clock().timestamp()),
                n_empty=call.n_empty,
                is_main=call.is_main,
            )
            await self._record(command)
            pulled = self.log.state.entries[-1]
            assert isinstance(pulled, MessagesPulled)
            self.mailbox.handed(pulled)
        return pulled

    async def _reply(self, message_id: str) -> PulledReply:
        """What the node gave, if its bytes are what it said."""
        sent, answer = self.mailbox.of(message_id), self.mailbox.answer(message_id)
        assert sent is not None
        about = {
            "message_id": message_id,
            "node_id": sent.message.node_id,
            "round_number": sent.round_number,
        }
        if answer is None or answer.content is None:
            error, reason = error_of(answer)
            return PulledReply(**about, error=error, reason=reason)
        try:
            await self._fetched(answer.content.uri, answer.content.sha256)
        except (DigestDiffers, TooLarge, NotFound) as trouble:
            return PulledReply(**about, error=NO_REPLY, reason=str(trouble))
        return PulledReply(**about, content=answer.content)

    async def _handed(self, reply: PulledReply) -> Reply:
        content = reply.content
        if content is not None:
            self._given.append(await self._fetched(content.uri, content.sha256))
        return Reply(
            message_id=reply.message_id,
            node_id=reply.node_id,
            sha256=None if content is None else content.sha256,
            error=reply.error,
            reason=reply.reason,
        )

    # --- parts --------------------------------------------------------------

    @property
    def _budget_seconds(self) -> float:
        return Budget.of(self.asked.spec.spec.round_policy).exchange.total_seconds()

    async def _record(self, command: JournalCommand) -> None:
        await patiently(lambda: self.log.record([(command, self.asked.context)]))

    def _content(self, sha256: str) -> str:
        to = self.asked.spec.spec.artifacts
        return f"s3://{to.bucket}/{to.prefix}/messages/{sha256}.recorddict"

    async def _fetched(self, uri: str, sha256: str) -> Path:
        path = self.inbox / sha256
        download = self.bridge.blobs.download

        async def fetch() -> None:
            await asyncio.to_thread(download, uri, path, sha256=sha256, max_bytes=LARGEST_REPLY)

        if not path.exists():
            await patiently(fetch)
        return path

    def _forget(self) -> None:
        """What `main` was handed before, it has read."""
        for path in self._given:
            path.unlink(missing_ok=True)
        self._given.clear()


def node_ids(serving: ServerAppStarted) -> tuple[int, ...]:
    """Flower's ids of the nodes, by their places: the same in each run of the same spec."""
    return tuple(
        (derive_seed(serving.seed, "node", place, "high") << 31)
        | derive_seed(serving.seed, "node", place)
        for place in range(len(serving.nodes))
    )


def _message_id(seed: int, number: int, place: int) -> str:
    return hashlib.sha256(f"{seed} {number} {place}".encode()).hexdigest()


def _batches(messages: Sequence[Sent]) -> Iterator[list[Sent]]:
    """An exchange has one message for a node; another one to it begins the next exchange."""
    batch: list[Sent] = []
    for sent in messages:
        if any(one.node_id == sent.node_id for one in batch):
            yield batch
            batch = []
        batch.append(sent)
    yield batch


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Again and again while the database or the store is away; who waits has a deadline."""
    wait = FIRST_WAIT
    while True:
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_WAIT)
