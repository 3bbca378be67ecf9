"""The dashboard: static files, read once, with no secret in them and no third party asked.

`/` is the page, `/assets/…` what it loads. Anyone may load it: it shows nothing without a token.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Header, Response

from flowerbed.events.errors import NotFound

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
"""Only files of these kinds are served."""

_POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Asked again each time, answered with 304: a new release is never mixed with an old one.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}
_WORTH_PACKING = 1024


@dataclass(frozen=True, slots=True)
class Asset:
    media_type: str
    plain: bytes
    packed: bytes | None
    digest: str

    def answer(self, accepts: str, known: str) -> Response:
        is_packed = self.packed is not None and "gzip" in accepts
        etag = f'"{self.digest}{"-gzip" if is_packed else ""}"'
        headers = _HEADERS | {"ETag": etag}
        if etag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        content = self.packed if is_packed else self.plain
        return Response(content, media_type=self.media_type, headers=headers)


def web_routes() -> APIRouter:
    router = APIRouter(include_in_schema=False)
    assets = dict(_assets(files("flowerbed.gateway") / "web"))

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(
        accept_encoding: Annotated[str, Header()] = "", if_none_match: Annotated[str, Header()] = ""
    ) -> Response:
        return assets["index.html"].answer(accept_encoding, if_none_match)

    @router.api_route("/assets/{path:path}", methods=["GET", "HEAD"])
    async def asset(
        path: str,
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        found = assets.get(path)
        if found is None:
            raise NotFound(f"the dashboard has no file {path[:200]!r}")
        return found.answer(accept_encoding, if_none_match)

    return router


def _assets(folder: Traversable, prefix: str = "") -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for one in folder.iterdir():
        name = f"{prefix}{one.name}"
        if one.is_dir():
            found += _assets(one, f"{name}/")
        elif media_type := MEDIA_TYPES.get(PurePosixPath(name).suffix):
            found.append((name, _asset(one.read_bytes(), media_type)))
    return found


def _asset(content: bytes, media_type: str) -> Asset:
    packed = None
    if len(content) > _WORTH_PACKING and media_type != MEDIA_TYPES[".woff2"]:
        packed = gzip.compress(content, mtime=0)
    digest = hashlib.sha256(content).hexdigest()[:32]
    return Asset(media_type=media_type, plain=content, packed=packed, digest=digest)
