"""Publishers' signatures: what holds, and what somebody changed, moved or made up does not."""

import stat
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from flowerbed.contracts.bundle import SIGNATURE, BadBundle, read_bundle, unpack, with_signature
from flowerbed.runner import publishers
from flowerbed.runner.errors import BadInput, Refused
from flowerbed.runner.publishers import is_name, load_key, make_key, name_of, sign, signer_of
from flowerbed.runner.site_policy import SitePolicy
from tests.support.apps import bundle
from tests.unit.runner.test_site_policy import manifest

RAW = bundle()


@pytest.fixture
def key(tmp_path: Path) -> OKPKey:
    return make_key(tmp_path / "key.pem")


def test_a_signed_bundle_is_known_by_its_publisher_and_is_the_same_app(
    key: OKPKey, tmp_path: Path
) -> None:
    signed = sign(RAW, key)
    assert signed == sign(RAW, key), "the same app, so nobody has to be asked again"
    found = unpack(signed, tmp_path / "app")
    assert found.content == read_bundle(RAW).content
    assert signer_of(found, [name_of(OKPKey.generate_key("Ed25519")), name_of(key)]) == name_of(key)
    assert (tmp_path / "app" / SIGNATURE).is_file()


def test_who_did_not_sign_it_is_not_its_publisher(key: OKPKey) -> None:
    other = OKPKey.generate_key("Ed25519")
    assert signer_of(read_bundle(RAW), [name_of(key)]) is None
    assert signer_of(read_bundle(sign(RAW, other)), [name_of(key)]) is None
    assert signer_of(read_bundle(sign(RAW, key)), []) is None


def test_a_signature_does_not_hold_for_other_files(key: OKPKey) -> None:
    signature = read_bundle(sign(RAW, key)).signature
    assert signature is not None
    changed = bundle({"drift/task.py": "import os"})
    moved = read_bundle(with_signature(changed, signature))
    assert signer_of(moved, [name_of(key)]) is None


@pytest.mark.parametrize("said", ["", "a.b", "a.b.c", "{}", "ä"])
def test_what_is_no_signature_is_none(key: OKPKey, said: str) -> None:
    if said == "ä":
        with pytest.raises(BadBundle, match="no signature"):
            read_bundle(with_signature(RAW, said))
    else:
        assert signer_of(read_bundle(with_signature(RAW, said)), [name_of(key)]) is None


def test_what_the_key_signed_for_something_else_does_not_count(key: OKPKey) -> None:
    content = read_bundle(RAW).content
    for header, payload in (
        ({"alg": "EdDSA", "typ": "other"}, f'{{"content":"{content}"}}'),
        ({"alg": "EdDSA", "typ": publishers.TYPE}, f'"{content}"'),
        ({"alg": "EdDSA", "typ": publishers.TYPE}, content),
    ):
        token = jws.serialize_compact(header, payload, key, ["EdDSA"])
        assert signer_of(read_bundle(with_signature(RAW, token)), [name_of(key)]) is None


def test_a_bundle_is_signed_once(key: OKPKey) -> None:
    with pytest.raises(BadBundle, match="signed already"):
        sign(sign(RAW, key), key)


def test_a_key_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    name = name_of(make_key(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert name_of(load_key(path)) == name and is_name(name)
    with pytest.raises(BadInput, match="is there already"):
        make_key(path)


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_what_is_no_key_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"key\.pem"):
        load_key(path)


def test_a_public_key_or_another_kind_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    for key in (OKPKey.generate_key("Ed25519"), OKPKey.generate_key("X25519")):
        path.write_bytes(key.as_pem(private=key.curve_name == "X25519"))
        with pytest.raises(BadInput, match="no private Ed25519 key"):
            load_key(path)


def test_a_site_allows_what_its_publishers_signed(key: OKPKey) -> None:
    policy = SitePolicy(publishers=(name_of(key),))
    policy.check_offer(manifest())  # not fetched: it may be signed
    policy.check_claims(manifest(), read_bundle(sign(RAW, key)))
    with pytest.raises(Refused, match="none of publishers has signed it") as refused:
        policy.check_claims(manifest(), read_bundle(RAW))
    assert refused.value.code == "policy-app"


@pytest.mark.parametrize("name", ["alice", "ed25519:", "ed25519:AAAA", "ed25519:" + "ä" * 43])
def test_a_rule_names_whole_keys(name: str) -> None:
    with pytest.raises(BadInput, match="no publisher's key"):
        SitePolicy().changed({"publishers": [name]})
