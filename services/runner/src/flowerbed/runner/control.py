"""Start, stop and look at the agent as a process, from outside. Imports nothing heavy."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from flowerbed.runner.errors import BadInput, NotReachable, RunnerError
from flowerbed.runner.keeping import AGENT_COMMAND, running_keeper, start_keeper
from flowerbed.runner.state import StateDir, read_json
from flowerbed.runner.status import Status, read_status

START_SECONDS = 20.0
REACH_SECONDS = 5.0
"""How long a door that does not answer at first may take to do so."""
STOP_SECONDS = 15.0
LARGEST_LOG = 10 << 20
_STEP = 0.1


class AgentFailed(RunnerError):
    """The agent ended before it polled; its log tells why."""


def running_agent(state: StateDir) -> psutil.Process | None:
    """The agent's process; a number that was given to another process since is not it."""
    record = read_json(state.lock)
    if record is None:
        return None
    try:
        process = psutil.Process(int(record["pid"]))
        is_it = abs(process.create_time() - float(record["started_at"])) < 0.05
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return None


def start_agent(state: StateDir, command: Sequence[str] = AGENT_COMMAND) -> Status:
    """Start the agent and its keeper behind us, and wait until the agent polls.

    Raises:
        BadInput: it ended at once: its settings do not work.
        AgentFailed: it ended for another reason.
        NotReachable: it runs, but the clients' door does not answer it yet.
    """
    if running_keeper(state) is not None:
        stop_agent(state)  # it pauses between two tries: the person does not have to wait
    _turn_log(state.log)
    state.status.unlink(missing_ok=True)
    process = start_keeper(state, command)
    return _await_polling(state, process)


def _await_polling(state: StateDir, process: "subprocess.Popen[bytes]") -> Status:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = read_status(state)
        if status is not None and status.phase in ("polling", "not-admitted"):
            process.returncode = 0  # it goes on without us: Popen must not wait for it
            return status
        if status is not None and status.phase == "not-reachable":
            deadline = min(deadline, time.monotonic() + REACH_SECONDS)
        if (code := process.poll()) is not None:
            if code == 2 and running_agent(state) is not None:
                return _await_other(state, deadline)
            raise (BadInput if code == 2 else AgentFailed)(_last_line(state.log))
        time.sleep(_STEP)
    process.returncode = 0
    status = read_status(state)
    reason = status.last_error.message if status and status.last_error else "it is still starting"
    raise NotReachable(f"the agent runs and keeps trying: {reason}")


def _await_other(state: StateDir, deadline: float) -> Status:
    """Somebody else started an agent at the same moment: theirs is the one."""
    while time.monotonic() < deadline:
        status = read_status(state)
        if status is not None and status.phase == "polling":
            return status
        time.sleep(_STEP)
    raise NotReachable("another agent was started at the same moment and does not poll yet")


def stop_agent(state: StateDir, *, release: bool = False) -> bool:
    """End the keeper and the agent; True if there was one of them."""
    found = [one for one in (running_keeper(state), running_agent(state)) if one is not None]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGUSR1 if release else signal.SIGTERM)
    _, alive = psutil.wait_procs(found, STOP_SECONDS)
    for process in found:  # the keeper first: it would start the agent again
        if process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    psutil.wait_procs(alive, STOP_SECONDS)
    return bool(found)


def log_lines(state: StateDir, lines: int, *, follow: bool = False) -> Iterator[str]:
    """The log's last lines; with `follow`, also what comes after them, for ever."""
    try:
        file = state.log.open(errors="replace")
    except FileNotFoundError:
        raise BadInput(f"{state.root} has no log: no agent ever ran there") from None
    with file:
        yield from file.read().splitlines()[-lines:] if lines else ()
        while follow:
            if line := file.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(_STEP * 3)


def _turn_log(log: Path) -> None:
    if log.exists() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    # The log's lines begin with time, level and name; a person wants what follows.
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "the agent ended at once"
