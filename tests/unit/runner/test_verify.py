"""Nothing that the control plane did not sign, for this site and this moment, is acted upon."""

import json
import time
import warnings
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from flowerbed.contracts.door import LeaseOffer
from flowerbed.contracts.signed import (
    ALGORITHM,
    ISSUER,
    MANIFEST_TYPE,
    WORK_ORDER_TYPE,
    Manifest,
    WorkOrder,
)
from flowerbed.contracts.values import DatasetRef
from flowerbed.flower_apps import registry
from flowerbed.runner import clock
from flowerbed.runner.errors import Refused
from flowerbed.runner.verify import (
    KeyRing,
    Terms,
    check_offer,
    check_order,
    read_claims,
    unverified_work_id,
)

KEY = OKPKey.generate_key("Ed25519", {"kid": "k1"})
DATASET = DatasetRef(label="heart-1", sha256="d" * 64)
TERMS = Terms(client_id="site-a", tenant="default", dataset=DATASET, dataset_uri="local:heart")
NOW = int(time.time())


@pytest.fixture(autouse=True)
def _clock_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now", lambda: float(NOW))


def sign(claims: dict[str, Any], typ: str = MANIFEST_TYPE, key: OKPKey = KEY) -> str:
    header = {"alg": ALGORITHM, "kid": key.kid, "typ": typ}
    with warnings.catch_warnings(action="ignore"):  # RFC 9864 has a newer name for EdDSA
        return jws.serialize_compact(header, json.dumps(claims), key, [ALGORITHM])


def claims(**changes: Any) -> dict[str, Any]:
    return {
        "iss": ISSUER, "aud": "site-a", "nbf": NOW, "exp": NOW + 60, "iat": NOW, "jti": "1",
        "tenant": "default", "federation_id": "fed-1", "client_id": "site-a",
        "lease_id": "lease-1", "lease_epoch": 1, "app": "builtin:hospital",
        "code_hash": registry.code_hash("hospital"), "model_uri": "builtin:hospital",
        "model_sha256": None, "strategy": "fedavg", "hyper_parameters": {},
        "limits": {"ttl_seconds": 60}, **changes,
    }  # fmt: skip


def order_claims(**changes: Any) -> dict[str, Any]:
    work = {
        "work_id": "fed-1.1.1.train.site-a", "round_number": 1, "attempt": 1, "exchange": "train",
        "message_type": "train", "seed": 1, "config": {}, "dataset_sha256": DATASET.sha256,
        "base": {"uri": "s3://b/k", "sha256": "b" * 64, "size": 1},
        "download": {"url": "http://s3/b"}, "upload": {"url": "http://s3/u", "uri": "s3://b/u"},
    }  # fmt: skip
    return {**claims(), **work, **changes}


def offer_of(manifest: Manifest) -> LeaseOffer:
    return LeaseOffer(lease_id="lease-1", federation_id="fed-1", epoch=1, manifest="")


def check(token: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        manifest = read_claims(token, KEY, Manifest)
    check_offer(manifest, offer_of(manifest), TERMS)


def test_signed_manifest_for_this_site_is_accepted() -> None:
    check(sign(claims()))
    check(sign(claims(dataset_uris=["local:heart"], dataset_shards=["heart-1"])))
    check(sign(claims(dataset_hashes=["e" * 64, "d" * 64])))


def test_a_form_of_updates_that_is_not_known_here_is_declined() -> None:
    check(sign(claims(update={"form": "int8", "block": 64, "later": 1})))
    with pytest.raises(Refused, match="travel as sketch, known here are bfloat16") as refused:
        check(sign(claims(update={"form": "sketch", "rows": 5})))
    assert refused.value.code == "update-form"


def test_no_byte_of_a_manifest_can_be_flipped() -> None:
    token = sign(claims()).encode()
    for place in range(len(token)):
        for bit in (0x01, 0x20):
            flipped = bytearray(token)
            flipped[place] ^= bit
            with pytest.raises(Refused):
                check(flipped.decode("latin-1"))


def test_signature_has_one_spelling() -> None:
    token = sign(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    for other in (twin, token + "=", token + "!", token + "\n"):
        with pytest.raises(Refused) as refused:
            check(other)
        assert refused.value.code == "signature"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "someone"}, "wrong-issuer"),
        ({"aud": "site-b"}, "wrong-audience"),
        ({"client_id": "site-b"}, "wrong-audience"),
        ({"aud": "site-b", "client_id": "site-b"}, "wrong-audience"),
        ({"nbf": NOW + 100, "exp": NOW + 200}, "not-yet-valid"),
        ({"nbf": NOW - 200, "exp": NOW - 100}, "expired"),
        ({"tenant": "other"}, "wrong-tenant"),
        ({"code_hash": "0" * 64}, "code-hash"),
        ({"app": "builtin:nothing"}, "unknown-app"),
        ({"app": "hospital"}, "unknown-app"),
        ({"lease_id": "lease-2"}, "lease-mismatch"),
        ({"lease_epoch": 2}, "lease-mismatch"),
        ({"federation_id": "fed-2"}, "lease-mismatch"),
        ({"dataset_uris": ["local:lungs"]}, "dataset-not-admitted"),
        ({"dataset_shards": ["heart-2"]}, "dataset-not-admitted"),
        ({"dataset_hashes": ["e" * 64]}, "dataset-not-admitted"),
        ({"limits": {"ttl_seconds": 0}}, "claims"),
        ({"code_hash": None}, "claims"),
    ],
)
def test_manifest_that_breaks_a_rule_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as refused:
        check(sign(claims(**changes)))
    assert refused.value.code == code


def test_clocks_may_differ_a_little() -> None:
    check(sign(claims(nbf=NOW + 5, exp=NOW + 60)))
    check(sign(claims(nbf=NOW - 60, exp=NOW - 2)))


def test_another_kind_of_claims_or_key_is_refused() -> None:
    for token, code in [
        (sign(claims(), WORK_ORDER_TYPE), "wrong-type"),
        (sign(claims(), "JWT"), "wrong-type"),
        (sign(claims(), key=OKPKey.generate_key("Ed25519", {"kid": "k1"})), "signature"),
        ("no.jws", "signature"),
        (_unsigned(), "signature"),
    ]:
        with pytest.raises(Refused) as refused:
            check(token)
        assert refused.value.code == code


def _unsigned() -> str:
    with warnings.catch_warnings(action="ignore"):
        header = {"alg": "none", "typ": MANIFEST_TYPE}
        return jws.serialize_compact(header, json.dumps(claims()), KEY, ["none"])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lease_epoch": 2}, "lease-mismatch"),
        ({"lease_id": "lease-2"}, "lease-mismatch"),
        ({"federation_id": "fed-2"}, "lease-mismatch"),
        ({"app": "builtin:vision", "code_hash": registry.code_hash("vision")}, "lease-mismatch"),
        ({"dataset_sha256": "e" * 64}, "dataset-changed"),
        ({"upload": None}, "claims"),
        ({"aud": "site-b"}, "wrong-audience"),
        ({"exp": NOW - 100}, "expired"),
    ],
)
def test_order_that_breaks_a_rule_is_refused(changes: dict[str, Any], code: str) -> None:
    manifest = Manifest.model_validate(claims())
    check_order(WorkOrder.model_validate(order_claims()), manifest, TERMS)
    with pytest.raises(Refused) as refused:
        check_order(WorkOrder.model_validate(order_claims(**changes)), manifest, TERMS)
    assert refused.value.code == code


async def test_unknown_key_is_asked_for_once_and_known_ones_are_not() -> None:
    asked: list[str] = []
    newer = OKPKey.generate_key("Ed25519", {"kid": "k2"})

    async def refetch() -> dict[str, Any]:
        asked.append("jwks")
        return {"keys": [newer.as_dict(private=False), {"kty": "oct", "kid": "k3", "k": "eA"}]}

    ring = KeyRing({"keys": [KEY.as_dict(private=False)]}, refetch)
    assert (await ring.find(sign({}))).kid == "k1"
    assert asked == []
    assert (await ring.find(sign({}, key=newer))).kid == "k2"
    assert asked == ["jwks"]
    stranger = OKPKey.generate_key("Ed25519", {"kid": "k3"})
    for token in (sign({}, key=stranger), sign({})):
        with pytest.raises(Refused) as refused:
            await ring.find(token)
        assert refused.value.code == "unknown-key", "a key that is no longer published is gone"
    for token in ("%%%.x.y", "W10.x.y"):
        with pytest.raises(Refused) as refused:
            await ring.find(token)
        assert refused.value.code == "signature"


def test_refused_order_is_named_only_by_a_plain_name() -> None:
    assert unverified_work_id(sign(order_claims())) == "fed-1.1.1.train.site-a"
    for work_id in ("../../x", "", 7, "a" * 400):
        assert unverified_work_id(sign(order_claims(work_id=work_id))) is None
    assert unverified_work_id("nonsense") is None
    assert unverified_work_id("a.b.c") is None
