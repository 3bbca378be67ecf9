"""Where a spec may have spans sent: an address that can be read in one way only, and allowed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerbed.contracts.problems import SpecRefused, parse_spec
from flowerbed.contracts.telemetry import Telemetry, read_address, read_origins, refused
from tests.support.federations import document

COLLECTOR = "https://collector.example:4318"


def of(endpoint: str, **more: str) -> dict[str, Any]:
    return document(telemetry={"otlp_endpoint": endpoint, **more})


def problems(written: dict[str, Any], *allowed: str) -> list[tuple[str, str, str]]:
    with pytest.raises(SpecRefused) as error:
        parse_spec(written, otlp_allowed=allowed)
    return [(one.path, one.value, one.allowed) for one in error.value.problems]


@pytest.mark.parametrize(
    ("endpoint", "origin", "path"),
    [
        (COLLECTOR, COLLECTOR, ""),
        ("HTTPS://Collector.Example", "https://collector.example:443", ""),
        ("http://otel_collector/", "http://otel_collector:80", ""),
        ("http://10.0.0.7:04318/otlp/", "http://10.0.0.7:4318", "/otlp"),
        ("http://[0:0::1]:4317", "http://[::1]:4317", ""),
        ("https://a.example/tenant@b/%41;x=1", "https://a.example:443", "/tenant@b/%41;x=1"),
    ],
)
def test_an_address_has_one_origin(endpoint: str, origin: str, path: str) -> None:
    address = read_address(endpoint)
    assert (address.origin, address.path, address.url) == (origin, path, origin + path)
    assert parse_spec(of(endpoint), otlp_allowed=[origin]).spec.telemetry is not None


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        ("collector.example:4318", "http://HOST:PORT"),
        ("ftp://collector.example", "http://HOST:PORT"),
        ("file:///etc/passwd", "http://HOST:PORT"),
        ("//collector.example", "http://HOST:PORT"),
        (" https://collector.example", "http://HOST:PORT"),
        ("https://", "a host"),
        ("https:///v1", "a host"),
        ("https://:4318", "a host"),
        ("https://collector.example:", "a host"),
        ("https://collector.example:4318:1", "a host"),
        ("https://coll ector.example", "a host"),
        ("https://collector.example\\@evil.example", "user name"),
        ("https://collector.example\\.evil.example", "a host"),
        ("https://collector.example\n.evil.example", "a host"),
        ("https://collector.example\n", "a host"),
        ("https://collector.example.", "a host"),
        ("https://bücher.example", "a host"),
        ("https://collector.example:0", "a port"),
        ("https://collector.example:65536", "a port"),
        ("https://[::1", "a host"),
        ("https://[::g]:1", "a host"),
        ("https://[1:2]:1", "IPv6"),
        ("https://[fe80::1%25eth0]:1", "a host"),
        ("https://me@collector.example", "user name"),
        ("https://me:secret@collector.example", "user name"),
        ("https://collector.example/?key=secret", "query"),
        ("https://collector.example?", "query"),
        ("https://collector.example/#here", "fragment"),
        ("https://collector.example/a b", "path"),
        ("https://collector.example/\r\nX: y", "path"),
        ("https://collector.example/" + "a" * 500, "at most 500"),
    ],
)
def test_what_is_no_endpoint_is_refused_in_words_and_shows_no_secret(
    endpoint: str, word: str
) -> None:
    ((path, value, allowed),) = problems(of(endpoint))
    assert path == "spec.telemetry.otlp_endpoint"
    assert word in allowed
    assert "secret" not in value


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({}, "spec.telemetry.otlp_endpoint"),
        ({"otlp_endpoint": 4318}, "spec.telemetry.otlp_endpoint"),
        ({"otlp_endpoint": None}, "spec.telemetry.otlp_endpoint"),
        ({"otlp_endpoint": COLLECTOR, "headers": {"a": "b"}}, "spec.telemetry.headers"),
        (
            {"otlp_endpoint": COLLECTOR, "otlp_protocol": "http/json"},
            "spec.telemetry.otlp_protocol",
        ),
        ({"otlp_endpoint": COLLECTOR, "otlpEndpoint": COLLECTOR}, "spec.telemetry.otlp_endpoint"),
        ("https://me:secret@collector.example", "spec.telemetry"),
    ],
)
def test_the_section_has_its_rules(section: object, path: str) -> None:
    ((found, value, _),) = problems(document(telemetry=section), COLLECTOR)
    assert (found, "secret" in value) == (path, False)


def test_a_section_in_the_wrong_place_shows_no_secret_either() -> None:
    section = {"otlp_endpoint": "https://me:secret@collector.example"}
    ((path, value, _),) = problems({**document(), "telemetry": section})
    assert (path, "secret" in value) == ("telemetry", False)


def test_both_spellings_are_read() -> None:
    spec = parse_spec(document(telemetry={"otlpEndpoint": COLLECTOR, "otlpProtocol": "grpc"}))
    assert spec.spec.telemetry == Telemetry(otlp_endpoint=COLLECTOR, otlp_protocol="grpc")


def test_an_origin_that_nobody_allows_is_refused_and_the_setting_is_named() -> None:
    for allowed in ((), ("https://collector.example:443",), ("http://collector.example:4318",)):
        ((path, value, told),) = problems(of(f"{COLLECTOR}/x"), *allowed)
        assert (path, value) == ("spec.telemetry.otlp_endpoint", f"'{COLLECTOR}/x'")
        assert "FLOWERBED_<SERVICE>_OTLP_ALLOWED" in told and COLLECTOR in told


def test_it_is_told_beside_the_other_rules_that_are_broken() -> None:
    found = {path for path, _, _ in problems({**of(COLLECTOR), "kind": "Field"})}
    assert found == {"kind", "spec.telemetry.otlp_endpoint"}


def test_a_spec_that_is_only_read_is_not_held_against_what_is_allowed() -> None:
    assert parse_spec(of(COLLECTOR)).spec.telemetry is not None


def test_a_spec_without_the_section_needs_no_permission() -> None:
    assert parse_spec(document(), otlp_allowed=()).spec.telemetry is None
    assert parse_spec(document(telemetry=None), otlp_allowed=()).spec.telemetry is None


def test_origins_are_read_from_a_list_with_commas() -> None:
    written = f"{COLLECTOR}, http://b.example/ ,,{COLLECTOR.upper()}"
    assert read_origins(written) == (COLLECTOR, "http://b.example:80")
    assert read_origins("") == read_origins(()) == ()


@pytest.mark.parametrize(
    "text", ["*", "collector.example", "https://*.example", f"{COLLECTOR}/v1", "https://a:b@c"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        read_origins(text)


@given(st.text(max_size=40))
def test_whatever_follows_an_allowed_origin_it_is_still_that_origin(tail: str) -> None:
    """Nothing that is written after it makes another host of it."""
    try:
        is_refused = refused(COLLECTOR + tail, [COLLECTOR])
    except ValueError:
        return
    if is_refused is None:
        address = read_address(COLLECTOR + tail)
        assert (address.host, address.port) == ("collector.example", 4318)
        assert tail == "" or tail.startswith("/")
