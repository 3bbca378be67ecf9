"""What streams have come to is kept, up to a limit."""

from flowerbed.events.states import Key, States


def key(stream: str) -> Key:
    return (1, "roses", stream)


def test_the_furthest_version_is_kept() -> None:
    states = States()
    states.keep(key("a"), 3, "third")
    states.keep(key("a"), 2, "second")
    assert states.find(key("a")) == (3, "third")
    states.keep(key("a"), 4, "fourth")
    assert states.find(key("a")) == (4, "fourth")
    states.forget(key("a"))
    assert states.find(key("a")) is None


def test_the_least_recently_used_make_room() -> None:
    states = States(most_events=10)
    states.keep(key("a"), 4, "a")
    states.keep(key("b"), 4, "b")
    assert states.find(key("a"))
    states.keep(key("c"), 4, "c")
    assert states.find(key("b")) is None
    assert states.find(key("a")) == (4, "a")
    assert states.find(key("c")) == (4, "c")


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    states = States(most_events=10)
    states.keep(key("a"), 11, "a")
    assert states.find(key("a")) is None
    states.keep(key("b"), 10, "b")
    assert states.find(key("b")) == (10, "b")
