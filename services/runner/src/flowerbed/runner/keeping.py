"""The keeper from outside: start it, find it, and from the agent's side, have it replaced."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from flowerbed.runner.state import StateDir, read_json

logger = logging.getLogger(__name__)

AGENT_COMMAND = (sys.executable, "-m", "flowerbed.runner")
PAUSE = 1.0
_KEEPER = Path(__file__).with_name("keeper.py")
_INVITE_VARIABLE = "FLOWERBED_INVITE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the keeper says. `restarts`: how often it has started the agent again, and `last_end`
    why it last did, at `changed_at`."""

    pid: int
    restarts: int
    last_end: str
    changed_at: datetime


def start_keeper(
    state: StateDir, agent: Sequence[str] = AGENT_COMMAND, adopted: int = 0
) -> "subprocess.Popen[bytes]":
    """Have an agent started and kept, or the one that runs as `adopted` kept."""
    environment = {name: value for name, value in os.environ.items() if name != _INVITE_VARIABLE}
    command = [sys.executable, "-I", "-S", str(_KEEPER), str(state.root), str(adopted)]
    log = os.open(state.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [*command, *agent, "--state-dir", str(state.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=state.root,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(log)


def running_keeper(state: StateDir) -> psutil.Process | None:
    kept = read_kept(state)
    if kept is None:
        return None
    try:
        process = psutil.Process(kept.pid)
        is_it = {str(_KEEPER), str(state.root)} <= set(process.cmdline())
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def read_kept(state: StateDir) -> Kept | None:
    """What the keeper last said, if one was not told to stop since."""
    record = read_json(state.keeper_lock)
    if record is None:
        return None
    changed_at = datetime.fromtimestamp(state.keeper_lock.stat().st_mtime, UTC)
    return Kept(**record, changed_at=changed_at)


async def keep_the_keeper(state: StateDir, keeper: int) -> None:
    """Replace a keeper that is killed, for ever; the new one adopts this process."""
    while True:
        await _ended(keeper)
        logger.warning("the keeper %d is gone: another one is started", keeper)
        await asyncio.sleep(PAUSE)
        try:
            keeper = start_keeper(state, adopted=os.getpid()).pid
        except OSError as error:
            logger.warning("no keeper can be started: %s", error)


async def _ended(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
