"""Names, seeds and subjects: the same today as when the first federation was recorded."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.contracts.event import is_token, subject
from flowerbed.contracts.ids import derive_seed, federation_id, lease_id, work_id


def test_ids_are_what_they_were_when_they_were_first_recorded() -> None:
    federation = federation_id("default", "demo-1795335692975848714")
    assert federation == "fed-6a5c65e9cbced9ac"
    lease = lease_id(federation, "client-c14f10e7b79a")
    assert lease == "81a46806-ece4-5869-b9ad-96f1eab20822"
    assert work_id("fed-1", 2, 1, "train", "client-a") == "fed-1.2.1.train.client-a"


def test_seeds_are_what_they_were_when_they_were_first_recorded() -> None:
    # From the first recorded run of the hospitals (seed 7): round 1, and its first client.
    assert derive_seed(7, "round", 1) == 824897814
    assert derive_seed(824897814, "client", 0) == 808354480
    assert derive_seed(7, "evaluation", 1) == 867188588


def test_the_same_submission_in_another_tenant_is_another_federation() -> None:
    assert federation_id("acme", "s1") != federation_id("other", "s1")
    assert federation_id("a", "bs1") != federation_id("ab", "s1")


def test_a_seed_is_the_beginning_of_a_sha256_of_its_parts() -> None:
    digest = hashlib.sha256(b"7\0round\0" + b"3").digest()
    assert derive_seed(7, "round", 3) == int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


@given(st.integers(0, 2**31 - 1), st.lists(st.integers() | st.text(), max_size=4))
def test_a_derived_seed_can_be_a_seed_again(seed: int, parts: list[int | str]) -> None:
    derived = derive_seed(seed, *parts)
    assert 0 <= derived < 2**31
    assert derived == derive_seed(seed, *parts)


def test_a_subject_ends_in_the_tenant_and_the_federation() -> None:
    assert subject("fl.round.started", "acme", "fed-1") == "fl.round.started.acme.fed-1"
    assert subject("fl.client.enrolled", "acme") == "fl.client.enrolled.acme._"


@pytest.mark.parametrize("text", ["a", "A-b_9", "x" * 64, "_"])
def test_letters_digits_hyphen_and_underscore_are_a_token(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", "a.b", "*", ">", "a b", "ü", "x" * 65, "a\n", "a\0"])
def test_what_would_change_a_subject_is_no_token_and_makes_none(text: str) -> None:
    assert not is_token(text)
    with pytest.raises(ValueError, match="is not a subject token"):
        subject("fl.round.started", text, "fed-1")
    with pytest.raises(ValueError, match="is not a subject token"):
        subject("fl.round.started", "acme", text)
