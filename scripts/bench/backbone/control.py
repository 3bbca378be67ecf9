"""A process of the benchmark, seen from outside: started, told to begin, listened to, ended."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

LONGEST_LINE = 2**24
ENDS_WITHIN = 20.0


class Role:
    """Such as `ours:relay`; `job.py` is its other side."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    async def go(self) -> float:
        """Let it begin; the moment at which it did, in seconds since the epoch."""
        await self.told("ready", 60.0)
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        facts = await self.told("began", 10.0)
        return float(facts["began"])

    async def told(self, word: str, seconds: float) -> dict[str, Any]:
        """The next line that says something of `word`.

        Raises:
            TimeoutError: it did not say so.
            AssertionError: it has ended.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            while line := await self._process.stdout.readline():
                facts: dict[str, Any] = json.loads(line)
                if word in facts:
                    return facts
        raise AssertionError(f"{self.name} ended without a word of {word!r}")

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), ENDS_WITHIN)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def role(name: str, state_dir: Path, **options: Any) -> AsyncIterator[Role]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.bench.backbone.job", name,
        "--state-dir", str(state_dir), "--options", json.dumps(options),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LONGEST_LINE,
    )  # fmt: skip
    started = Role(name, process)
    try:
        yield started
    finally:
        await started.stop()
