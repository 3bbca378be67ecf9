"""Payloads in and out, and old ones brought up to date on the way in."""

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from flowerbed.contracts.event import Event
from flowerbed.events.codec import Codec
from flowerbed.events.errors import UnknownEvent


class Planted(Event):
    """Version 1 had `name`, version 2 `plant`, and version 3 counts."""

    type: ClassVar[str] = "fl.test.planted"
    schema_version: ClassVar[int] = 3
    plant: str
    number: int


class Stranger(Event):
    type: ClassVar[str] = "fl.test.stranger"


def rename(data: dict[str, Any]) -> dict[str, Any]:
    return {"plant": data["name"]}


def count_one(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "number": 1}


codec = Codec([Planted], {("fl.test.planted", 1): rename, ("fl.test.planted", 2): count_one})


def test_what_was_encoded_is_decoded() -> None:
    event = Planted(plant="rose", number=2)
    assert codec.decode(*codec.encode(event)) == event
    assert codec.encode(event) == ("fl.test.planted", 3, b'{"plant":"rose","number":2}')


@pytest.mark.parametrize(
    ("version", "data"),
    [(1, '{"name": "rose"}'), (2, '{"plant": "rose"}'), (3, b'{"plant": "rose", "number": 1}')],
)
def test_old_payload_goes_through_every_upcaster_behind_it(version: int, data: bytes | str) -> None:
    assert codec.decode("fl.test.planted", version, data) == Planted(plant="rose", number=1)


def test_field_that_a_newer_producer_added_is_ignored() -> None:
    data = '{"plant": "rose", "number": 1, "colour": "red"}'
    assert codec.decode("fl.test.planted", 3, data) == Planted(plant="rose", number=1)


@pytest.mark.parametrize(
    ("event_type", "version", "message"),
    [
        ("fl.test.eaten", 1, "event type 'fl.test.eaten' is not known here"),
        ("fl.test.planted", 4, "schema version 4, newest known here is 3"),
        ("fl.test.planted", 0, "no upcaster for fl.test.planted from schema version 0"),
    ],
)
def test_payload_that_cannot_be_read_is_unknown(
    event_type: str, version: int, message: str
) -> None:
    with pytest.raises(UnknownEvent, match=message):
        codec.decode(event_type, version, "{}")


def test_event_of_another_codec_is_not_encoded() -> None:
    with pytest.raises(UnknownEvent, match=r"fl\.test\.stranger"):
        codec.encode(Stranger())


def test_payload_without_a_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        codec.decode("fl.test.planted", 3, "{}")


def test_codec_knows_its_types() -> None:
    assert codec.types == {"fl.test.planted"}
