"""Answers a ServerApp's `main`, run again, from its journal: the same calls get the same answers.

The thread of `main` must repeat its calls one by one. Other threads (Flower's older strategies have
a pool of them) may come in another order: theirs are found by what they send. Pure code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowerbed.aggregator.journal import Entry
from flowerbed.contracts.server_app import MessagesPulled, MessagesPushed
from flowerbed.flower_apps.grid_pipe import Pull, Push, Sent


class Difference(Exception):
    """The app does not what it did. `was`, `now`: digests of two contents where they differ."""

    def __init__(self, text: str, was: str | None = None, now: str | None = None) -> None:
        super().__init__(text)
        self.text, self.was, self.now = text, was, now


@dataclass(frozen=True, slots=True)
class Nothing:
    """A fruitless pull that happened before."""


@dataclass(slots=True)
class Replay:
    """`entries` that were not asked for yet, in order."""

    entries: list[Entry] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return not self.entries

    def push(self, call: Push, batch: Sequence[Sent]) -> MessagesPushed | None:
        """The fact that these messages were sent before; None if they are new.

        Raises:
            Difference: something else was done before.
        """
        if not call.is_main:
            return self._push_of_thread(batch)
        entry = self._next(is_main=True)
        match entry:
            case None:
                return None
            case MessagesPulled():
                raise Difference(text=f"it sends messages where it had {_told(entry)}")
            case MessagesPushed():
                _compare(entry, batch)
                self.entries.remove(entry)
                return entry

    def pull(self, call: Pull) -> MessagesPulled | Nothing | None:
        """What it was handed before; None if nobody knows yet.

        Raises:
            Difference: something else was done before.
        """
        if not call.is_main:
            return self._pull_of_thread(call)
        entry = self._next(is_main=True)
        if entry is None:
            return None
        if not call.waits and call.n_empty < entry.n_empty:
            return Nothing()
        if isinstance(entry, MessagesPushed):
            raise Difference(text=f"it asks for replies where it had {_told(entry)}")
        strangers = {reply.message_id for reply in entry.replies} - set(call.ids)
        if strangers:
            raise Difference(text="it asks for replies to other messages than before")
        self.entries.remove(entry)
        return entry

    def end(self) -> None:
        """Raises: Difference: `main` ends before it has done all that it did."""
        if self.entries:
            entry = self.entries[0]
            raise Difference(text=f"it ends where it had {_told(entry)}")

    def _next(self, *, is_main: bool) -> Entry | None:
        return next((entry for entry in self.entries if entry.is_main == is_main), None)

    def _push_of_thread(self, batch: Sequence[Sent]) -> MessagesPushed | None:
        for entry in self.entries:
            if not isinstance(entry, MessagesPushed) or entry.is_main:
                continue
            if _key(entry) == [_key_of(sent) for sent in batch]:
                self.entries.remove(entry)
                return entry
        return None

    def _pull_of_thread(self, call: Pull) -> MessagesPulled | None:
        for entry in self.entries:
            if not isinstance(entry, MessagesPulled) or entry.is_main:
                continue
            if {reply.message_id for reply in entry.replies} <= set(call.ids):
                self.entries.remove(entry)
                return entry
        return None


def _compare(entry: MessagesPushed, batch: Sequence[Sent]) -> None:
    place = f"exchange {entry.round_number}"
    if len(batch) != len(entry.cohort):
        raise Difference(
            text=f"{place}: it sends {len(batch)} messages, and sent {len(entry.cohort)}"
        )
    for number, (was, now) in enumerate(zip(entry.cohort, batch, strict=True), 1):
        about = f"{place}, message {number} of {len(batch)}"
        for what, before, after in (
            ("is for node", was.node_id, now.node_id),
            ("has type", was.message_type, now.message_type),
            ("has group", was.group_id, now.group_id),
        ):
            if before != after:
                raise Difference(text=f"{about} {what} {after}, and was {before}")
        if was.content.sha256 != now.sha256:
            text = f"{about} ({now.message_type} to node {now.node_id}) has another content"
            raise Difference(text=text, was=was.content.sha256, now=now.sha256)


def _key(entry: MessagesPushed) -> list[tuple[int, str, str]]:
    return [(one.node_id, one.message_type, one.content.sha256) for one in entry.cohort]


def _key_of(sent: Sent) -> tuple[int, str, str]:
    return sent.node_id, sent.message_type, sent.sha256


def _told(entry: Entry) -> str:
    if isinstance(entry, MessagesPushed):
        return f"sent the {len(entry.cohort)} messages of exchange {entry.round_number}"
    return f"been handed {len(entry.replies)} replies of exchange {entry.round_number}"
