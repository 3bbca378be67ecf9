"""Whatever is sent, the answer is a problem that is written down: never an error of ours."""

import json
from typing import Any

from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.story import FED, ref, whole_story

HUGE = str(10**40)
SURROGATE = '"\\ud800"'
DEEP = "[" * 50_000


ADDRESSES = [
    "/federations?name=%00", "/federations/%00", "/federations/a%00b/why",
    "/clients?cursor=%00",
    "/federations?name=%ff%fe", "/federations/%ff%fe", "/federations/%ED%A0%80",
    f"/federations?limit={HUGE}", f"/federations/{FED}/events?after={HUGE}",
    f"/federations/{FED}/events?after={2**63}", f"/federations/{FED}/rounds/{HUGE}",
    f"/federations/{FED}/rounds/{2**31}", f"/federations/{FED}/rounds/-1",
    f"/audit?before={HUGE}", "/audit?since=0001-01-01T00:00:00%2B14:00", "/audit?actor=%00",
    "/federations?cursor=AAAA", "/federations?cursor=W10", "/federations?cursor=é",
    "/federations?cursor=WyJceDAwIiwgIlx1MDAwMCJd", "/clients?cursor=WyJhIiwgIlx1MDAwMCJd",
    "/federations?cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgImEiXQ",
    "/clients?cursor=WyJcdWQ4MDAiLCAiYSJd", "/federations?tenant=%00", "/federations?tenant=",
    "/federations?tenant=a&tenant=b", "/federations/?x", "/federations//", "/artifacts/..%2f..",
    f"/federations/{'x' * 5000}", "/federations/%F0%9F%8C%B8", "/federations?status=%00",
    "/dead-letters?tenant=a.b", "//", "/%2e%2e/%2e%2e/etc/passwd",
]  # fmt: skip


async def test_reading_with_nonsense_is_answered(gateway: Gateway) -> None:
    for path in ADDRESSES:
        answer = await gateway.http.get(str(gateway.http.base_url).rstrip("/") + path)
        assert answer.status_code in (200, 400, 404, 422), (path, answer.text)
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json", path
            assert answer.json()["status"] == answer.status_code


BODIES = [
    b"", b"{", b"\xff\xfe\x00", b"\x00", b"null", b"[]", b"7", b'"text"', b"NaN",
    b'{"reason": NaN}',
    f'{{"reason": {SURROGATE}}}'.encode(), f'{{{SURROGATE}: 1}}'.encode(), DEEP.encode(),
    b'{"a":' * 5000, f'{{"reason": {HUGE}}}'.encode(), b'{"reason": "a\\u0000b"}',
    f'{{"quorum": {SURROGATE}}}'.encode(), b'{"tenant": "a\\u0000b", "ttl_seconds": 1e400}',
    f'{{"ttl_seconds": {"9" * 5000}}}'.encode(), b'{"reason": "x", "reason": "y"}',
    '{"reason": "é"}'.encode("utf-16"), '{"reason": "é"}'.encode("latin-1"),
    json.dumps({"reason": "x" * 2000}).encode(), b"&a [*a, *a]", b"!!python/object:os.system x",
    b'{"federation_id": "\\u0000", "channel": "\\u0000"}', b"a: \x7f\x01", b'"\\ud800": 1',
]  # fmt: skip
KINDS = (
    "application/json", "application/problem+json", "application/json; charset=utf-16",
    "application/yaml", "text/plain", "",
    "multipart/form-data", "é", "application/json; charset=\"", "*/*",
)  # fmt: skip


PATHS = (
    "/federations", f"/federations/{FED}/policy", f"/federations/{FED}/pause",
    f"/artifacts/{ref('two').sha256}/promote", f"/artifacts/{ref('two').sha256}/revoke",
    "/clients/invites", "/clients/client-a/revoke", "/dead-letters/replay",
    f"/artifacts/{FED}/1/verify",
)  # fmt: skip


async def test_a_body_of_nonsense_is_answered(gateway: Gateway) -> None:
    await gateway.hear(whole_story().told)
    for place, path in enumerate(PATHS):
        for number, body in enumerate(BODIES):
            kind = KINDS[(place + number) % len(KINDS)]
            headers: Any = {"content-type": kind.encode("latin-1")}
            answer = await gateway.http.post(path, content=body, headers=headers)
            assert answer.status_code < 500, (path, body[:80], kind, answer.text)


async def test_odd_headers_are_answered(gateway: Gateway) -> None:
    for headers in (
        {"idempotency-key": b"\xff\xfe"}, {"traceparent": b"\xff"},
        {"authorization": b"Bearer \xff"},
        {"authorization": b"Bearer"}, {"authorization": b"\xff \xff"}, {"accept": b"\xff"},
        {"x-forwarded-for": b"\xff, a\x7fb"},
        {"authorization": b"Bearer " + b"a.b.c" * 3000},
    ):  # fmt: skip
        raw: Any = headers
        for path in ("/federations", "/audit"):
            answer = await gateway.http.get(path, headers=raw)
            assert answer.status_code < 500
        answer = await gateway.http.post("/federations", content=b"{x", headers=raw)
        assert answer.status_code < 500


async def test_every_answer_is_in_the_api_document(gateway: Gateway) -> None:
    told = (await gateway.http.get("/openapi.json")).json()
    assert told["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    guarded = 0
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            if "x-role" not in operation:
                assert path in ("/healthz", "/readyz", "/metrics", "/status"), path
                continue
            guarded += 1
            answers = set(operation["responses"])
            assert {"401", "403", "422", "429", "503"} <= answers, (method, path)
            assert method == "get" or {"404", "409", "413"} <= answers, (method, path)
            assert "{" not in path or "404" in answers, (method, path)
    assert guarded >= 18
