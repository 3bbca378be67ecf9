"""Given/when/then for deciders.

given(lease, granted(epoch=1)).when(release(epoch=1)).then(released(epoch=1))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import pytest

from flowerbed.events.decider import C, Decider, E, S


@dataclass(frozen=True, slots=True)
class Given(Generic[S, C, E]):
    decider: Decider[S, C, E]
    history: Sequence[E]

    def when(self, command: C) -> "When[S, C, E]":
        return When(self, command)


@dataclass(frozen=True, slots=True)
class When(Generic[S, C, E]):
    given: Given[S, C, E]
    command: C

    def then(self, *expected: E) -> None:
        assert self._decide() == list(expected)

    def then_nothing(self) -> None:
        assert self._decide() == []

    def then_rejected(self, error: type[Exception], match: str = "") -> None:
        with pytest.raises(error, match=match):
            self._decide()

    def then_state(self, expected: S) -> None:
        decider = self.given.decider
        assert decider.replay([*self.given.history, *self._decide()]) == expected

    def _decide(self) -> list[E]:
        decider = self.given.decider
        return decider.decide(decider.replay(self.given.history), self.command)


def given(decider: Decider[S, C, E], *history: E) -> Given[S, C, E]:
    return Given(decider, history)
