"""Bytes that come or go are the bytes that were named."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from flowerbed.contracts.signed import Upload
from flowerbed.contracts.values import ArtifactRef
from flowerbed.runner.errors import NotReachable, Refused
from flowerbed.runner.transfer import KEPT_BASES, download, upload

URL = "http://store/base"


def reference(content: bytes, size: int | None = None) -> ArtifactRef:
    digest = hashlib.sha256(content).hexdigest()
    return ArtifactRef(uri="s3://b/k", sha256=digest, size=len(content) if size is None else size)


def sent(content: bytes) -> httpx.Response:
    """An answer whose body comes over the wire, in two pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        yield content[:2]
        yield content[2:]

    return httpx.Response(200, content=pieces())


def store(*answers: httpx.Response | Exception) -> httpx.AsyncClient:
    waiting = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        given = waiting.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_base_is_downloaded_once_and_the_newest_are_kept(tmp_path: Path) -> None:
    contents = [b"one", b"two", b"three"]
    http = store(*(sent(content) for content in contents))
    for content in contents:
        path = await download(http, URL, reference(content), tmp_path / "bases")
        assert path.read_bytes() == content
        assert await download(http, URL, reference(content), tmp_path / "bases") == path
    assert len(list((tmp_path / "bases").iterdir())) == KEPT_BASES


async def test_base_that_was_damaged_on_disk_is_fetched_again(tmp_path: Path) -> None:
    http = store(sent(b"one"), sent(b"one"))
    path = await download(http, URL, reference(b"one"), tmp_path)
    path.write_bytes(b"")
    assert (await download(http, URL, reference(b"one"), tmp_path)).read_bytes() == b"one"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"other", reference(b"one")),
        (b"one", reference(b"one", size=4)),
        (b"one and a half", reference(b"one")),
        (b"", reference(b"one")),
    ],
)
async def test_base_that_is_not_the_named_one_is_refused(
    content: bytes, named: ArtifactRef, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as refused:
        await download(store(sent(content)), URL, named, tmp_path)
    assert refused.value.code == "base-hash-mismatch"
    assert os.listdir(tmp_path) == []


async def test_store_that_is_away_is_tried_again_and_one_that_refuses_is_not(
    tmp_path: Path,
) -> None:
    file = tmp_path / "update"
    file.write_bytes(b"update")
    target = Upload(url="http://store/u", uri="s3://b/u")
    for answer in (httpx.ConnectError("away"), httpx.Response(503), httpx.Response(409)):
        with pytest.raises(NotReachable):
            await upload(store(answer), target, file)
        with pytest.raises(NotReachable):
            await download(store(answer), URL, reference(b"one"), tmp_path / "bases")
    with pytest.raises(Refused) as refused:
        await upload(store(httpx.Response(403)), target, file)
    assert refused.value.code == "upload-refused"
    with pytest.raises(Refused) as refused:
        await download(store(httpx.Response(404)), URL, reference(b"one"), tmp_path / "bases")
    assert refused.value.code == "base-not-available"


async def test_update_is_sent_whole_and_one_that_lies_there_counts(tmp_path: Path) -> None:
    file = tmp_path / "update"
    file.write_bytes(b"update" * 1000)
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await request.aread()
        seen.append(request)
        return httpx.Response(200 if len(seen) == 1 else 412)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    target = Upload(url="http://store/u", uri="s3://b/u", headers={"if-none-match": "*"})
    await upload(http, target, file)
    await upload(http, target, file)
    request = seen[0]
    assert (request.content, request.headers["content-length"]) == (b"update" * 1000, "6000")
    assert request.headers["if-none-match"] == "*"
    assert "transfer-encoding" not in request.headers
