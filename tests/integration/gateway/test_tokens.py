"""Tokens of a real issuer over HTTP: which are taken, and what happens when it is away."""

import base64
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from fastapi.responses import JSONResponse, RedirectResponse, Response
from joserfc import jws
from joserfc.jwk import KeySet
from pydantic import SecretStr

from flowerbed.contracts.issuers import Issuer
from flowerbed.events.errors import Unavailable
from flowerbed.events.http import Unauthorized
from flowerbed.gateway.auth import Authenticator, Principal, Role
from flowerbed.gateway.issuer_keys import KEEP_FOR, REFRESH_EVERY, IssuerKeys
from flowerbed.gateway.tokens import Tokens
from tests.support.issuer import (
    AUDIENCE,
    TestIssuer,
    issuer,
    new_key,
    shared_secret,
    signed_with_secret,
)
from tests.support.servers import eventually

ROLES = {"flowerbed_roles": {"acme": "operator"}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def one() -> AsyncIterator[TestIssuer]:
    async with issuer() as made:
        yield made


def tokens(one: TestIssuer, clock: Clock | None = None, **more: Any) -> Tokens:
    keys = partial(IssuerKeys, clock=clock) if clock else IssuerKeys
    return Tokens([one.settings(**more)], keys=keys)


async def test_a_signed_token_says_who_it_is_and_what_they_may_do(one: TestIssuer) -> None:
    known = Authenticator(SecretStr("local"), [one.settings()])
    for header in ("Bearer {}", "bearer   {}", "BEARER {}  "):
        found = await known.authenticate(header.format(one.token(**ROLES)))
        assert found == Principal("alice", one.url, {"acme": Role.operator})
    assert (await known.authenticate("Bearer local")).actor == "local-token"
    assert one.asked == [".well-known/openid-configuration", "keys"], "keys are asked for once"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": float("nan")}, ""),
        ({"aud": "another"}, "aud"),
        ({"aud": ["another", "third"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"iss": "https://id.example"}, "tokens of issuer 'https://id.example' are not taken"),
        ({"iss": None}, "tokens of issuer"),
        ({"iss": ["x"]}, "tokens of issuer"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
        ({"iat": int(time.time()) + 3600}, "in the future"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "x" * 256}, "sub"),
    ],
)
async def test_a_token_with_wrong_claims_proves_nothing(
    one: TestIssuer, claims: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unauthorized) as refused:
        await tokens(one).principal(one.token(**ROLES, **claims))
    assert said in str(refused.value)


async def test_several_audiences_and_clocks_that_differ_a_little_are_fine(one: TestIssuer) -> None:
    now = int(time.time())
    for claims in (
        {"aud": ["other", AUDIENCE]}, {"exp": now - 10}, {"nbf": now + 10}, {"iat": now + 10},
    ):  # fmt: skip
        assert (await tokens(one).principal(one.token(**claims))).subject == "alice"
    with pytest.raises(Unauthorized):
        await tokens(one, leeway_seconds=0).principal(one.token(exp=now - 10))


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


async def test_no_signature_and_no_shared_secret_is_enough(one: TestIssuer) -> None:
    key = one.keys[0]
    public = key.as_pem(private=False)
    forged = [
        unsigned({"alg": "none", "kid": key.kid}, one.claims(**ROLES)),
        unsigned({"alg": "None", "kid": key.kid}, one.claims(**ROLES)),
        unsigned({"alg": "RS256", "kid": key.kid}, one.claims(**ROLES)),
        unsigned({"kid": key.kid}, one.claims(**ROLES)),
        signed_with_secret({"alg": "HS256", "kid": key.kid}, one.claims(**ROLES), public),
        signed_with_secret({"alg": "HS256"}, one.claims(**ROLES), public),
    ]
    for token in forged:
        with pytest.raises(Unauthorized):
            await tokens(one).principal(token)


async def test_a_key_that_the_token_brings_along_counts_for_nothing(one: TestIssuer) -> None:
    own = new_key("of-mallory")
    for header in (
        {"alg": "RS256", "jwk": own.as_dict(private=False)},
        {"alg": "RS256", "kid": "first"},
        {"alg": "RS256", "jku": "https://mallory.example/keys", "kid": "first"},
    ):
        raw = json.dumps(one.claims(**ROLES)).encode()
        token = jws.serialize_compact(header, raw, own, algorithms=["RS256"])
        with pytest.raises(Unauthorized, match="signed by no key of its issuer"):
            await tokens(one).principal(token)


async def test_a_changed_token_is_no_token(one: TestIssuer) -> None:
    known = tokens(one)
    header, claims, signature = one.token(**ROLES).split(".")
    raised = unsigned({}, one.claims(flowerbed_roles={"*": "admin"})).split(".")[1]
    for token in (
        f"{header}.{raised}.{signature}", f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}", f"{header}.{claims}.", "a.b.c", "..", "é.é.é", "x" * 40_000,
        f"{header}.{'A' * 20_000}.{signature}",
    ):  # fmt: skip
        with pytest.raises(Unauthorized):
            await known.principal(token)


async def test_a_token_of_another_kind_is_refused(one: TestIssuer) -> None:
    for kind, is_taken in (("JWT", True), ("at+jwt", True), ("logout+jwt", False)):
        token = one.with_header({"alg": "RS256", "kid": "first", "typ": kind}, one.keys[0])
        if is_taken:
            await tokens(one).principal(token)
        else:
            with pytest.raises(Unauthorized, match="of another kind"):
                await tokens(one).principal(token)


async def test_elliptic_keys_and_tokens_without_a_key_id_are_taken(one: TestIssuer) -> None:
    one.keys = [new_key("first"), new_key("curve", "ES256")]
    known = tokens(one)
    assert (await known.principal(one.token(new_key("curve")))).subject == "alice"
    assert (await known.principal(one.with_header({"alg": "RS256"}, one.keys[0]))).subject


async def test_a_rotated_key_is_found_and_asked_for_seldom(one: TestIssuer) -> None:
    clock = Clock()
    known = tokens(one, clock)
    await known.principal(one.token())
    one.keys = [new_key("second")]
    clock.now += REFRESH_EVERY + 1
    assert (await known.principal(one.token())).subject == "alice"
    assert one.asked.count("keys") == 2
    for number in range(5):
        with pytest.raises(Unauthorized, match="signed by no key"):
            stray = {"alg": "RS256", "kid": f"unknown-{number}"}
            await known.principal(one.with_header(stray, new_key("second")))
    assert one.asked.count("keys") == 2, "unknown keys are asked for once in a while"
    with pytest.raises(Unauthorized):
        await known.principal(one.token(new_key("first"), sub="bob"))


async def test_a_withdrawn_key_is_forgotten_in_time(one: TestIssuer) -> None:
    clock = Clock()
    known = tokens(one, clock)
    await known.principal(one.token())
    one.keys = [new_key("second")]
    clock.now += KEEP_FOR + 1
    await known.principal(one.token(new_key("first"), sub="bob"))  # asks beside it
    await eventually(lambda: one.asked.count("keys") == 2, "the keys are asked for anew")
    clock.now += REFRESH_EVERY + 1

    async def is_refused() -> bool:
        try:
            await known.principal(one.token(new_key("first"), sub=f"carol-{time.monotonic()}"))
        except Unauthorized:
            return True
        return False

    await eventually(is_refused, "the old key is worth nothing")


async def test_while_the_issuer_is_away_known_keys_work_and_unknown_ones_wait(
    one: TestIssuer,
) -> None:
    clock = Clock()
    known = tokens(one, clock)
    await known.principal(one.token())
    await one.stop()
    clock.now += REFRESH_EVERY + 1
    assert (await known.principal(one.token(sub="bob"))).subject == "bob"
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not tell its keys"):
            await known.principal(one.token(new_key("second")))
    one.keys.append(new_key("second"))
    await one.start()
    clock.now += REFRESH_EVERY + 1
    assert (await known.principal(one.token(new_key("second")))).subject == "alice"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (".well-known/openid-configuration", Response(status_code=500)),
        (".well-known/openid-configuration", RedirectResponse("https://mallory.example/")),
        (".well-known/openid-configuration", JSONResponse({"issuer": "https://x", "jwks_uri": ""})),
        (".well-known/openid-configuration", Response(b"<html>")),
        (".well-known/openid-configuration", JSONResponse([])),
        ("keys", JSONResponse({"keys": 7})),
        ("keys", JSONResponse({})),
        ("keys", Response(b" " * 600_000)),
    ],
)
async def test_an_issuer_that_answers_nonsense_is_as_good_as_away(
    one: TestIssuer, path: str, answer: Response
) -> None:
    one.answers[path] = answer
    with pytest.raises(Unavailable):
        await tokens(one).principal(one.token())


async def test_shared_secrets_and_weak_keys_among_an_issuers_keys_are_left_out(
    one: TestIssuer,
) -> None:
    secret = shared_secret(b"s" * 32)
    listed = KeySet([new_key("first"), secret]).as_dict(private=True)["keys"]
    one.answers["keys"] = JSONResponse({"keys": [7, {}, {"kty": "RSA"}, *listed]})
    known = tokens(one)
    assert (await known.principal(one.token())).subject == "alice"
    for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": str(secret.kid)}):
        with pytest.raises(Unauthorized):
            await known.principal(one.with_header(header, secret))


async def test_two_issuers_do_not_answer_for_each_other(one: TestIssuer) -> None:
    async with issuer() as other:
        other.keys = [new_key("second")]
        known = Tokens([one.settings(), other.settings()])
        assert (await known.principal(other.token())).issuer == other.url
        with pytest.raises(Unauthorized):
            await known.principal(one.token(new_key("second"), iss=one.url))
        with pytest.raises(Unauthorized):
            await known.principal(one.token(iss=other.url))


async def test_keys_never_come_over_plain_http_from_afar() -> None:
    keys = IssuerKeys("https://id.example")
    for address in ("http://id.example/keys", "http://127.0.0.1:1/keys", "file:///etc/passwd"):
        with pytest.raises(ValueError):
            keys._checked(address)
    assert keys._checked("https://keys.example/k?v=1") == "https://keys.example/k?v=1"
    assert Issuer(issuer="https://id.example", audience="x").issuer
