"""Which addresses a webhook may call, how it signs, and how long it waits."""

import base64
import hmac
import ipaddress
import socket
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from flowerbed.gateway.webhooks.pace import Pace
from flowerbed.gateway.webhooks.sending import LONGEST_RETRY_AFTER, seconds_to_wait
from flowerbed.gateway.webhooks.signing import new_secret, signed_headers
from flowerbed.gateway.webhooks.targets import (
    AddressRefused,
    UrlRefused,
    checked_url,
    guarded_socket,
    is_refused,
)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook?key=1",
        "https://10.1.2.3:8443/",
        "http://localhost:8080/",
        "http://127.0.0.1:8080/hook",
        "http://127.9.9.9/hook",
        "http://[::1]:8080/",
    ],
)
def test_https_is_called_anywhere_and_http_on_this_machine(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "http://example.com/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/",
        "https://[fd00:ec2::254]/",
        "https://100.100.100.200/",
        "https://[::ffff:169.254.169.254]/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://0.0.0.0/",
        "https://name:hunter2@example.com/",
        "https://example.com:99999/",
        f"https://example.com/{'x' * 2048}",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(UrlRefused, match="allowed: ") as refused:
        checked_url(url)
    assert refused.value.errors[0]["path"] == "url"
    assert "hunter2" not in str(refused.value)


def test_a_fragment_is_nothing_that_is_sent() -> None:
    assert checked_url("https://example.com/a#b") == "https://example.com/a"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "93.184.216.34", "2606::1"])
def test_receivers_may_be_here_in_a_private_network_or_anywhere(address: str) -> None:
    assert not is_refused(ipaddress.ip_address(address))


def test_an_address_is_looked_at_again_when_the_connection_is_made() -> None:
    """A name may stand for another address than when the webhook was made."""
    bad = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 443))
    with pytest.raises(AddressRefused, match=r"169\.254\.169\.254 is not called"):
        guarded_socket(bad)
    scoped = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%lo", 443, 0, 1))
    with pytest.raises(AddressRefused):
        guarded_socket(scoped)
    guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))).close()


def test_what_is_signed_verifies_with_the_library_of_the_standard() -> None:
    secret, body = new_secret(), '{"type":"fl.round.started","näme":1}'
    headers = signed_headers(secret, "id-1", datetime.now(UTC), body)

    told = {"type": "fl.round.started", "näme": 1}
    assert Webhook(secret).verify(body.encode(), headers) == told
    for wrong in (new_secret(), secret[:-4] + "AAA="):
        with pytest.raises(WebhookVerificationError):
            Webhook(wrong).verify(body, headers)
    old = signed_headers(secret, "id-1", datetime.now(UTC) - timedelta(hours=1), body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, old)


def test_the_signature_is_that_of_the_specification() -> None:
    """https://www.standardwebhooks.com: HMAC-SHA256 over id, timestamp and body."""
    secret, at = new_secret(), datetime(2026, 1, 1, 12, tzinfo=UTC)
    headers = signed_headers(secret, "id-1", at, "{}")

    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"id-1.{int(at.timestamp())}.{{}}".encode()
    expected = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    assert headers == {
        "webhook-id": "id-1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": f"v1,{expected}",
    }


def test_no_two_secrets_are_the_same() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 12:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 12:01:00 -0000", 0.0),
        ("99999999999999", LONGEST_RETRY_AFTER),
        ("soon", 0.0),
        ("-5", 0.0),
        ("", 0.0),
    ],
)
def test_a_receiver_may_ask_for_a_pause_of_a_day_at_most(said: str, seconds: float) -> None:
    assert seconds_to_wait(said, datetime(2026, 1, 1, 12, tzinfo=UTC)) == seconds


def test_the_wait_doubles_up_to_the_longest_and_is_never_the_same_for_all() -> None:
    pace = Pace(first=1.0, longest=60.0)
    for n_failures, most in ((1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (5000, 60.0)):
        waits = {pace.wait(n_failures) for _ in range(20)}
        assert all(most / 2 <= wait <= most for wait in waits)
        assert len(waits) > 1
