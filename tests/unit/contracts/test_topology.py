"""Each fact has one owner, one JetStream stream, and no other writer."""

import re
from itertools import combinations

import pytest

from flowerbed.contracts.catalogue import EVENTS, owned_events
from flowerbed.contracts.event import Event, subject
from flowerbed.contracts.topology import (
    DURABLES,
    SERVICES,
    STREAMS,
    SUBMISSION_SUBJECT,
    SUBMISSIONS,
    durables,
    inbox_prefix,
    owned_stream,
    partition,
    partition_of_subject,
    permissions,
)

USERS = (*SERVICES, "submitter")
TYPES = tuple(event_type for stream in STREAMS for event_type in stream.types)


def reaches(pattern: str, published: str) -> bool:
    """NATS's own rule: `*` is one token, `>` is one or more."""
    wanted, parts = pattern.split("."), published.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(parts) > place
        if place >= len(parts) or part not in ("*", parts[place]):
            return False
    return len(wanted) == len(parts)


def may_publish(user: str, to: str) -> bool:
    return any(reaches(pattern, to) for pattern in permissions(user).publish)


def may_subscribe(user: str, to: str) -> bool:
    return any(reaches(pattern, to) for pattern in permissions(user).subscribe)


def test_every_event_type_has_exactly_one_stream_and_every_stream_only_known_types() -> None:
    assert len(TYPES) == len(set(TYPES))
    assert {event.type for event in EVENTS} == set(TYPES)
    assert len(EVENTS) == len(set(EVENTS))


def test_no_two_streams_share_a_subject() -> None:
    subjects = {stream.name: stream.subjects for stream in STREAMS}
    subjects[SUBMISSIONS] = (SUBMISSION_SUBJECT, f"{SUBMISSION_SUBJECT}.>")
    for one, other in combinations(subjects.values(), 2):
        assert not {s for s in one for o in other if reaches(o, s.replace(">", "x"))}


def test_an_event_type_is_the_first_three_tokens_of_its_subject() -> None:
    for event in EVENTS:
        assert re.fullmatch(r"fl\.[a-z]+\.[a-z_]+", event.type)
        (stream,) = (one for one in STREAMS if event.type in one.types)
        published = subject(event.type, "acme", "fed-1")
        assert [reaches(pattern, published) for pattern in stream.subjects].count(True) == 1


def test_an_owner_owns_the_events_of_its_stream_and_nobody_else_does() -> None:
    owned = {service: set(owned_events(service)) for service in SERVICES}
    for one, other in combinations(SERVICES, 2):
        assert not owned[one] & owned[other]
    assert set[type[Event]]().union(*owned.values()) == set(EVENTS)
    assert owned["gateway"] == set()
    assert owned_stream("gateway") is None


def test_a_durable_reads_only_types_that_its_stream_carries() -> None:
    types = {stream.name: set(stream.types) for stream in STREAMS}
    for durable in DURABLES:
        assert set(durable.types) <= types[durable.stream]
        assert len(durable.types) == len(set(durable.types))
    places = [(durable.stream, durable.name) for durable in DURABLES]
    assert len(places) == len(set(places))


def test_a_federation_stays_in_its_partition_for_ever() -> None:
    known = {"_": 2, "fed-1": 2, "fed-305aa300bdb40319": 1, "fed-0000000000000013": 3, "fed-ä": 0}
    assert {identity: partition(identity) for identity in known} == known


def test_an_event_is_read_by_the_durable_of_its_partition_alone() -> None:
    """Of those stored before there were partitions every durable is told, and one handles them."""
    for spec in DURABLES:
        if spec.partition is None:
            continue
        published = subject(spec.types[0], "acme", "fed-1")
        stored = f"{published}.{partition('fed-1')}"
        hears = any(reaches(pattern, stored) for pattern in spec.filter_subjects)
        assert hears is (spec.partition == partition("fed-1"))
        assert any(reaches(pattern, published) for pattern in spec.filter_subjects)
        assert partition_of_subject(published) == partition_of_subject(stored)
    assert partition_of_subject("fl.round.started.acme") == 0


@pytest.mark.parametrize("user", SERVICES)
def test_a_replica_of_the_release_before_may_still_read(user: str) -> None:
    for one in durables(user):
        assert may_publish(user, f"$JS.API.CONSUMER.MSG.NEXT.{one.stream}.{user}")


def test_the_gateway_hears_everything() -> None:
    assert {event_type for one in durables("gateway") for event_type in one.types} == set(TYPES)


@pytest.mark.parametrize("user", USERS)
def test_no_user_may_write_anothers_facts(user: str) -> None:
    for stream in STREAMS:
        for event_type in stream.types:
            published = subject(event_type, "acme", "fed-1")
            assert may_publish(user, published) is (stream.owner == user)


@pytest.mark.parametrize("user", USERS)
def test_only_who_submits_may_write_submissions(user: str) -> None:
    expected = user in ("submitter", "gateway")
    assert may_publish(user, SUBMISSION_SUBJECT) is expected
    assert may_publish(user, f"{SUBMISSION_SUBJECT}.acme.id-1") is expected


@pytest.mark.parametrize("user", USERS)
def test_no_user_may_change_what_jetstream_keeps(user: str) -> None:
    for stream in (*(one.name for one in STREAMS), SUBMISSIONS):
        for operation in (
            "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE",
            "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.DELETE",
        ):  # fmt: skip
            for tail in ("", ".x", ".x.y"):
                assert not may_publish(user, f"$JS.API.{operation}.{stream}{tail}")


@pytest.mark.parametrize("user", USERS)
def test_a_user_reads_through_its_own_durables_alone(user: str) -> None:
    places = {(one.stream, one.name) for one in DURABLES} | {(SUBMISSIONS, "orchestrator")}
    own = {(one.stream, one.name) for one in durables(user)}
    if user == "orchestrator":
        own.add((SUBMISSIONS, "orchestrator"))
    for stream, durable in places:
        for asked in (
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
            f"$JS.API.CONSUMER.RESET.{stream}.{durable}",
            f"$JS.ACK.{stream}.{durable}.1.2.3.4.5",
        ):
            assert may_publish(user, asked) is ((stream, durable) in own)


@pytest.mark.parametrize("user", USERS)
def test_nobody_hears_anothers_answers_or_facts(user: str) -> None:
    for other in USERS:
        assert may_subscribe(user, f"{inbox_prefix(other)}.x") is (user == other)
        assert may_subscribe(user, f"wake.{other}") is (user == other)
        assert may_publish(user, f"wake.{other}") is (user == other)
    for event_type in TYPES:
        assert not may_subscribe(user, subject(event_type, "acme", "fed-1"))
    assert not may_subscribe(user, f"{SUBMISSION_SUBJECT}.acme")
