"""HTTP as the agent speaks it: httpx's face on aiohttp, which needs a third of httpcore's time."""

import ssl

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from httpx_aiohttp.transport import AiohttpResponseStream

AiohttpResponseStream.CHUNK_SIZE = 1 << 18  # 16 kB pieces of a large model are all overhead

LIMITS = httpx.Limits(max_keepalive_connections=20, keepalive_expiry=60.0)


def open_client(
    context: ssl.SSLContext, *, timeout: httpx.Timeout | float = 5.0
) -> httpx.AsyncClient:
    """Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY), as httpx does."""
    return HttpxAiohttpClient(verify=context, limits=LIMITS, timeout=timeout)
