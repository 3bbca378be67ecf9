"""Who asked for a federation: the gateway can prove whom it names, nobody else can."""

from pydantic import SecretStr

from flowerbed.contracts.actor import LONGEST_ACTOR, proof, spelled
from flowerbed.orchestrator.submissions import trusted

TOKEN = SecretStr("internal")


def headers(actor: str, *, secret: str = "internal", named: str | None = None) -> dict[str, str]:
    shown = proof(secret, "s1", actor)
    return {"ce-id": "s1", "ce-source": "/me", "actor": named or actor, "actorproof": shown}


def test_the_gateways_word_counts() -> None:
    assert trusted(headers("alice"), TOKEN) == {"ce-id": "s1", "ce-source": "/me", "actor": "alice"}


def test_whoever_may_only_publish_names_nobody() -> None:
    unproven = {"ce-id": "s1", "ce-source": "/me"}
    for forged in (
        headers("alice", secret="guessed"),
        headers("alice", named="bob"),
        {**headers("alice"), "ce-id": "s2"},
        {**headers("alice"), "actorproof": "é"},
        {**headers("alice"), "actorproof": ""},
    ):
        assert trusted(forged, TOKEN) == {**unproven, "ce-id": forged["ce-id"]}
    assert trusted(headers("alice"), None) == unproven


def test_a_name_fits_into_any_header_and_stays_the_same_when_it_is_spelled_again() -> None:
    for name in ("alice", "Zoë\r\nx: y", "a\0b", "\ud800", "50% #1", "x" * 9000, ""):
        written = spelled(name)
        assert written.isascii() and written.isprintable() and len(written) <= LONGEST_ACTOR
        assert spelled(written) == written
