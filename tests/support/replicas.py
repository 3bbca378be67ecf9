"""A replica of a service as a process of its own, which a test may stop and kill."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from flowerbed.events.settings import SETTINGS_FILE, ServiceSettings


@asynccontextmanager
async def replica(
    module: str, settings: ServiceSettings, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m module` with these settings; killed at the end."""
    file = folder / f"replica-{settings.http_port}.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(_plain(settings)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env={**os.environ, SETTINGS_FILE: str(file)}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


def _plain(settings: ServiceSettings) -> dict[str, object]:
    return {
        key: value.get_secret_value() if isinstance(value, SecretStr) else value
        for key, value in settings.model_dump().items()
    }
