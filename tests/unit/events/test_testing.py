"""The given/when/then words, on a small decider."""

import pytest

from flowerbed.events.testing import given
from tests.support.garden import Bed, NothingSown, Sow, Sown, Water, Watered, bed


def test_then_compares_the_events() -> None:
    given(bed, Sown(seed="a")).when(Water(litres=2)).then(Watered(litres=2))
    with pytest.raises(AssertionError):
        given(bed, Sown(seed="a")).when(Water(litres=2)).then(Watered(litres=3))


def test_then_nothing_refuses_events() -> None:
    given(bed, Sown(seed="a")).when(Sow(seed="b")).then_nothing()
    with pytest.raises(AssertionError):
        given(bed).when(Sow(seed="b")).then_nothing()


def test_then_rejected_wants_the_error_and_its_words() -> None:
    given(bed).when(Water(litres=2)).then_rejected(NothingSown, match="nothing is sown")
    with pytest.raises(AssertionError):
        given(bed).when(Water(litres=2)).then_rejected(NothingSown, match="no water")


def test_then_state_folds_the_new_events() -> None:
    given(bed, Sown(seed="a")).when(Water(litres=2)).then_state(Bed(seed="a", litres=2))
