"""Bytes between this site and S3, through presigned addresses: hashed and counted on the way."""

import asyncio
import hashlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from flowerbed.contracts.bundle import LARGEST_BUNDLE
from flowerbed.contracts.signed import Upload
from flowerbed.contracts.values import ArtifactRef
from flowerbed.runner.door import retry_after
from flowerbed.runner.errors import NotReachable, Refused
from flowerbed.runner.http import open_client
from flowerbed.runner.state import has_digest

CHUNK = 1 << 20
KEPT_BASES = 2
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
ALREADY_THERE = 412
PLAIN = {"accept-encoding": "identity"}
_TRY_AGAIN = (408, 409, 425, 429)


def open_store(ca_pem: str) -> httpx.AsyncClient:
    """A client for S3: it shows no certificate, and trusts public CAs and the control plane's."""
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=ca_pem)
    return open_client(context, timeout=TIMEOUT)


def origin(url: str) -> str:
    """Scheme, host and port: what is no secret of a presigned address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def download(store: httpx.AsyncClient, url: str, base: ArtifactRef, folder: Path) -> Path:
    """The base checkpoint as a file, from the cache where it is there already.

    Raises:
        Refused: what came is not what the order names.
        NotReachable: the store is away.
    """
    path = folder / f"{base.sha256}.safetensors"
    if await asyncio.to_thread(_is_cached, path, base.sha256):
        return path
    with _incoming(path) as file:
        what = ("base-not-available", "the base checkpoint")
        digest, size = await _receive(store, url, base.size, file, what)
        if (digest, size) != (base.sha256, base.size):
            raise Refused(
                "base-hash-mismatch",
                f"the base is {digest} with {size} bytes,"
                f" the order says {base.sha256} with {base.size}",
            )
    _forget_old(folder)
    return path


async def download_app(store: httpx.AsyncClient, url: str, sha256: str, folder: Path) -> Path:
    """An app's bundle as a file, from the cache where it is there already.

    Raises:
        Refused: what came is not what is named.
        NotReachable: the store is away.
    """
    path = folder / f"{sha256}.fab"
    if await asyncio.to_thread(_is_cached, path, sha256):
        return path
    with _incoming(path) as file:
        what = ("app-not-available", "the app")
        digest, _ = await _receive(store, url, LARGEST_BUNDLE, file, what)
        if digest != sha256:
            raise Refused("code-hash", f"the app is {digest}, the manifest says {sha256}")
    return path


def _is_cached(path: Path, sha256: str) -> bool:
    if not has_digest(path, sha256):
        return False
    path.touch()  # the cache keeps what was used last
    return True


@contextmanager
def _incoming(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its place when the block ends well, and is gone when it does not."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


async def _receive(
    store: httpx.AsyncClient, url: str, most: int, file: BinaryIO, what: tuple[str, str]
) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    try:
        async with store.stream("GET", url, headers=PLAIN) as answer:
            _raise_for(answer, *what)
            async for chunk in answer.aiter_raw(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                if size > most:
                    break  # longer than it may be: never fill the site's disk
                file.write(chunk)
    except httpx.RequestError as error:
        raise NotReachable(f"the store did not answer: {type(error).__name__}") from error
    return digest.hexdigest(), size


def _forget_old(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    for path in files[:-KEPT_BASES]:
        path.unlink(missing_ok=True)


async def upload(store: httpx.AsyncClient, target: Upload, path: Path) -> None:
    """Put the file there; one that lies there already was put by an earlier try.

    Raises:
        Refused: the store does not take it.
        NotReachable: the store is away.
    """
    try:
        with path.open("rb") as file:
            headers = {**target.headers, "content-length": str(os.fstat(file.fileno()).st_size)}
            answer = await store.put(target.url, content=_chunks(file), headers=headers)
    except httpx.RequestError as error:
        raise NotReachable(f"the store did not answer: {type(error).__name__}") from error
    if answer.status_code != ALREADY_THERE:
        _raise_for(answer, "upload-refused", "the update")


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _raise_for(answer: httpx.Response, code: str, what: str) -> None:
    status = answer.status_code
    if status >= 500 or status in _TRY_AGAIN:
        wait = retry_after(answer.headers.get("retry-after"))
        raise NotReachable(f"the store answered {status} for {what}", wait)
    if status >= 300:
        raise Refused(code, f"the store answered {status} for {what}")
