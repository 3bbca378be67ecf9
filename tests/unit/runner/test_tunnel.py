"""The tunnel: what a SuperNode asks for goes out, and only the lease's own bundle comes in."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from flwr.proto.fab_pb2 import Fab, GetFabResponse
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message

from flowerbed.runner.errors import NotReachable
from flowerbed.runner.node_files import NodeFiles
from flowerbed.runner.tunnel import LARGEST_BODY, Tunnel, fab_content

BUNDLE = b"the lease's own bundle"
OTHER = b"another"


class Beyond:
    """The control plane: what it was asked, and what it answers."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self._answers = list(answers)

    async def __call__(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        self.asked.append((path, headers, body))
        answer = self._answers.pop(0) if self._answers else httpx.Response(200, content=b"ok")
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def tunnel(tmp_path: Path, beyond: Beyond) -> AsyncIterator[tuple[Tunnel, httpx.AsyncClient]]:
    files = NodeFiles(tmp_path / "node")
    files.public_key()
    opened = Tunnel(beyond, hashlib.sha256(BUNDLE).hexdigest())
    await opened.open(files.server_context())
    trusted = ssl.create_default_context(cafile=str(files.certificate))
    url = f"https://localhost:{opened.port}"
    try:
        async with httpx.AsyncClient(verify=trusted, base_url=url) as node:
            yield opened, node
    finally:
        await opened.close()


def fab(*contents: bytes) -> bytes:
    messages = [GetFabResponse(fab=Fab(hash_str="x", content=content)) for content in contents]
    return b"".join(message.SerializeToString() for message in messages)


async def test_what_a_supernode_asks_for_goes_out_as_it_is(tmp_path: Path) -> None:
    beyond = Beyond(httpx.Response(418, content=b"tea", headers={"x-flwr": "1"}))
    async with tunnel(tmp_path, beyond) as (_, node):
        answer = await node.post(
            "/v1/fleet/push-object", content=b"\0\1", headers={"flwr-signature": "s"}
        )
        again = await node.post("/v1/fleet/get-run", content=b"")
    assert (answer.status_code, answer.content, answer.headers["x-flwr"]) == (418, b"tea", "1")
    assert again.status_code == 200
    (path, headers, body), _ = beyond.asked
    assert (path, headers["flwr-signature"], body) == ("/v1/fleet/push-object", "s", b"\0\1")
    assert not {"host", "content-length"} & headers.keys()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"), ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/get-run/../../control/start-run"), ("POST", "/v1/leases/poll"),
        ("POST", "/v1/fleet/"), ("GET", "/v1/fleet/get-run"), ("POST", "/v1/fleet/get-run?x=1"),
    ],
)  # fmt: skip
async def test_nothing_else_goes_out(tmp_path: Path, method: str, path: str) -> None:
    beyond = Beyond()
    async with tunnel(tmp_path, beyond) as (_, node):
        url = httpx.URL(str(node.base_url)).copy_with(raw_path=path.encode())
        assert (await node.request(method, url)).status_code == 404
    assert beyond.asked == []


async def test_a_control_plane_that_is_away_is_asked_again(tmp_path: Path) -> None:
    """503 is what Flower takes for an absence that passes."""
    async with tunnel(tmp_path, Beyond(NotReachable("away"))) as (_, node):
        assert (await node.post("/v1/fleet/get-run", content=b"")).status_code == 503


async def test_a_body_without_end_goes_nowhere(tmp_path: Path) -> None:
    beyond = Beyond()
    async with tunnel(tmp_path, beyond) as (_, node):
        body = b"\0" * (LARGEST_BODY + 1)
        answer = await node.post("/v1/fleet/push-object", content=body, timeout=30)
        assert answer.status_code == 413
    assert beyond.asked == []


async def test_only_the_leases_own_bundle_comes_in(tmp_path: Path) -> None:
    beyond = Beyond(*(httpx.Response(200, content=fab(one)) for one in (BUNDLE, OTHER)))
    async with tunnel(tmp_path, beyond) as (opened, node):
        answer = await node.post("/v1/fleet/get-fab", content=b"")
        assert GetFabResponse.FromString(answer.content).fab.content == BUNDLE
        assert opened.refused is None
        answer = await node.post("/v1/fleet/get-fab", content=b"")
        assert (answer.status_code, answer.content) == (403, b"")
        assert opened.refused is not None
        assert hashlib.sha256(OTHER).hexdigest() in opened.refused


@pytest.mark.parametrize(
    "response",
    [
        fab(BUNDLE, OTHER), fab(OTHER, BUNDLE), fab(BUNDLE) + fab(OTHER)[:-1], b"", b"\x0a",
        b"\x08\1",
        fab(BUNDLE)[:-1], b"\xff" * 20, GetFabResponse().SerializeToString(),
        b"\x0a\x0c\x12\x04good\x12\x04evil",
    ],
)  # fmt: skip
def test_what_a_decoder_may_read_otherwise_is_no_bundle(response: bytes) -> None:
    """Protobuf merges a message that comes twice: the last one's bytes would run."""
    with pytest.raises(ValueError, match=r".*"):
        fab_content(response)


async def test_an_empty_answer_tells_that_the_supernode_has_no_work(tmp_path: Path) -> None:
    message = PullMessagesResponse(messages_list=[Message()]).SerializeToString()
    answers = [httpx.Response(200, content=one) for one in (message, b"", message)]
    async with tunnel(tmp_path, Beyond(*answers, httpx.Response(500))) as (opened, node):
        await node.post("/v1/fleet/pull-messages", content=b"")
        assert opened.idle_seconds is None
        await node.post("/v1/fleet/pull-messages", content=b"")
        assert opened.idle_seconds is not None
        assert opened.idle_seconds < 60
        before = opened._asked_in_vain_at
        for _ in range(2):
            await node.post("/v1/fleet/pull-messages", content=b"")
        assert opened._asked_in_vain_at == before


async def test_closing_it_ends_what_is_still_asked(tmp_path: Path) -> None:
    asked = asyncio.Event()

    class Silent(Beyond):
        async def __call__(self, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
            asked.set()
            await asyncio.sleep(60)
            raise AssertionError

    async with tunnel(tmp_path, Silent()) as (opened, node):
        waiting = asyncio.create_task(node.post("/v1/fleet/get-run", content=b"", timeout=30))
        await asyncio.wait_for(asked.wait(), 30)
        await opened.close()
        with pytest.raises(httpx.TransportError):
            await waiting
