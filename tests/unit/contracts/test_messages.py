"""Events ignore what they do not know, clients' messages refuse it; an invite is copied whole."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flowerbed.contracts.catalogue import EVENTS
from flowerbed.contracts.client import ClientDropped
from flowerbed.contracts.door import (
    Enrolment,
    Invite,
    LeaseBeat,
    LeaseClaim,
    LeasePoll,
    LeaseRelease,
    WorkFailure,
    WorkReport,
)
from flowerbed.contracts.event import Event
from flowerbed.contracts.federation import FederationCreated
from flowerbed.contracts.values import ArtifactRef, DatasetRef
from tests.support.federations import NOON, created, spec_of

INVITE = Invite(
    enrol_url="https://127.0.0.1:8443", ca_sha256="a" * 64, client_id="client-1", tenant="acme",
    secret="s-3_cret",
)  # fmt: skip


def test_an_invite_key_is_read_back_as_it_was_made() -> None:
    key = INVITE.encode()
    assert key.startswith("fbi_") and key.isascii() and "=" not in key
    assert Invite.decode(key) == INVITE


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_names_survive_an_invite_key(client_id: str, secret: str) -> None:
    invite = INVITE.model_copy(update={"client_id": client_id, "secret": secret})
    assert Invite.decode(invite.encode()) == invite


def test_a_recorded_invite_key_is_still_read() -> None:
    key = (
        "fbi_eyJlbnJvbF91cmwiOiJodHRwczovLzEyNy4wLjAuMTo4NDQzIiwiY2Ffc2hhMjU2IjoiYWFhYWFhYWFh"
        "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYSIsImNsaWVu"
        "dF9pZCI6ImNsaWVudC0xIiwidGVuYW50IjoiYWNtZSIsInNlY3JldCI6InMtM19jcmV0In0"
    )
    assert Invite.decode(key) == INVITE


def test_what_does_not_begin_like_an_invite_key_is_none() -> None:
    for text in ("", "fbi", "FBI_abc", INVITE.encode()[1:], "https://example.org"):
        with pytest.raises(ValueError, match="an invite key begins with fbi_"):
            Invite.decode(text)


def test_a_damaged_invite_key_is_refused_wherever_it_is_cut() -> None:
    key = INVITE.encode()
    for end in range(len("fbi_"), len(key)):
        with pytest.raises(ValueError, match="damaged: copy it whole"):
            Invite.decode(key[:end])
    for text in ("fbi_é", "fbi_!!!!", "fbi_bnVsbA", "fbi_e30"):
        with pytest.raises(ValueError, match="damaged: copy it whole"):
            Invite.decode(text)


def test_an_event_ignores_fields_of_a_later_producer() -> None:
    told = {**created().model_dump(mode="json"), "new": {"field": 1}}
    assert FederationCreated.model_validate_json(json.dumps(told)) == created()


def test_the_spec_of_a_created_federation_is_the_one_that_was_accepted() -> None:
    assert created(num_rounds=9).federation_spec == spec_of(num_rounds=9)


@pytest.mark.parametrize("event", EVENTS, ids=[event.type for event in EVENTS])
def test_an_event_says_what_it_is_for_and_is_frozen(event: type[Event]) -> None:
    assert event.schema_version >= 1
    assert event.model_config["frozen"] and event.model_config["extra"] == "ignore"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        FederationCreated.model_validate(
            {**created().model_dump(), "join_deadline_at": datetime(2026, 1, 1)}
        )
    assert NOON.tzinfo is UTC


DATASET = DatasetRef(label="hospital-1", sha256="d" * 64)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (LeaseBeat, {"epoch": 0}),
        (LeaseBeat, {"epoch": 1, "epochs": 1}),
        (LeasePoll, {"wait_seconds": 51}),
        (LeasePoll, {"wait_seconds": -1}),
        (LeasePoll, {"wait_seconds": float("nan")}),
        (LeaseClaim, {"epoch": 1, "dataset": {"label": "/srv/patients", "sha256": "d" * 64}}),
        (LeaseClaim, {"epoch": 1, "dataset": {"label": "x", "sha256": "d"}}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "metrics": {"a": "x"}}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 2**63}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "metrics": {"a\0": 1.0}}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "metrics": {"a": 1e999}}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "train_seconds": -1}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "measures": {"watts": 1}}),
        (WorkReport, {"epoch": 1, "artifact": None, "n_examples": 1, "measures": {"joules": -1}}),
        (WorkFailure, {"epoch": 1, "code": "Not A Code"}),
        (WorkFailure, {"epoch": 1, "code": "app-failed", "detail": "x" * 8193}),
        (Enrolment, {"client_id": "a b", "tenant": "acme", "secret": "s", "csr_pem": ""}),
        (Enrolment, {"client_id": "a", "tenant": "acme\0", "secret": "s", "csr_pem": ""}),
        (Enrolment, {"client_id": "a", "tenant": "a", "secret": "s", "csr_pem": "x" * 8193}),
    ],
)
def test_a_client_cannot_say_nonsense(message: type[Any], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        message.model_validate(body)


def test_a_claim_of_examples_is_the_screenings_to_judge() -> None:
    for n_examples in (0, -1, 10_000_000):
        ref = ArtifactRef(uri="s3://b/k", sha256="a" * 64, size=1)
        assert WorkReport(epoch=1, artifact=ref, n_examples=n_examples).n_examples == n_examples


def test_words_are_kept_without_what_postgres_cannot_keep() -> None:
    assert WorkFailure(epoch=1, code="app-failed", detail="a\0b").detail == "a\ufffdb"
    assert LeaseRelease(epoch=1, reason="gone\0").reason == "gone\ufffd"


def test_a_fact_of_a_client_names_it() -> None:
    with pytest.raises(ValidationError):
        ClientDropped.model_validate({"federation_id": "f", "lease_id": "l", "epoch": 1})
