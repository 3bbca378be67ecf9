"""The keeper: starts the agent again when it was killed or has crashed. It does nothing else.

    python -I -S keeper.py STATE_DIR ADOPTED_PID COMMAND...

It is run as a file, and imports next to nothing, so that it costs little and has no reason to die.
ADOPTED_PID is an agent that runs already, 0 to start one. The keeper ends with its agent: when that
was told to stop, ended in order, or cannot run until a person puts something right (exit code 2).
SIGTERM and SIGUSR1 are handed on to the agent, and end both.
"""

import fcntl
import os
import select
import signal
import sys
import time

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
SETTLED_SECONDS = 60.0
"""An agent that lived for so long is started again at once, whatever was before."""
TRIAL_SECONDS = 10.0
"""An agent that fails within these the very first time would fail again: a person waits for it."""
CANNOT_RUN = 2
RECORD_BYTES = 256


class Stopped(Exception):
    """Told to stop while there is no agent."""


class Keeper:
    def __init__(self, folder: str, command: list[str]) -> None:
        self._folder = folder
        self._command = [*command, "--kept-by", str(os.getpid())]
        self._agent = 0
        self._is_stopping = False
        self._restarts = 0
        self._last_end = ""
        self._lock = os.open(os.path.join(folder, "keeper.lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def run(self, adopted: int) -> int:
        """Keep an agent until it ends for good; answers the exit code."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return CANNOT_RUN  # it is kept already
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._hand_on)
        self._record()
        try:
            return self._keep(adopted)
        except Stopped:
            return 0
        finally:
            self._write("")

    def _keep(self, adopted: int) -> int:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            self._agent = adopted or os.posix_spawn(self._command[0], self._command, os.environ)
            code = _stranger_ended(adopted, self._folder) if adopted else _ended(self._agent)
            lived = time.monotonic() - began
            agent, self._agent, adopted = self._agent, 0, 0
            if self._is_stopping or code == 0:
                return 0
            is_trial = self._restarts == 0 and lived < TRIAL_SECONDS
            if code == CANNOT_RUN or (code is not None and code > 0 and is_trial):
                return code
            pause = FIRST_PAUSE if lived > SETTLED_SECONDS else pause
            self._restarts += 1
            self._last_end = _words(code)
            self._record()
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            _say(f"{now} WARNING keeper: agent {agent} {self._last_end}: again in {pause:g} s")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _hand_on(self, number: int, _: object) -> None:
        self._is_stopping = True
        if not self._agent:
            raise Stopped
        try:  # noqa: SIM105  # contextlib costs a megabyte
            os.kill(self._agent, number)
        except ProcessLookupError:
            pass

    def _record(self) -> None:
        """For `client status`; as JSON."""
        self._write(
            f'{{"pid": {os.getpid()}, "restarts": {self._restarts},'
            f' "last_end": "{self._last_end}"}}'
        )

    def _write(self, record: str) -> None:
        try:  # noqa: SIM105
            os.pwrite(self._lock, record.ljust(RECORD_BYTES).encode(), 0)
        except OSError:
            pass  # a full disk: keeping goes on, unseen


def _ended(agent: int) -> int | None:
    return os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])


def _stranger_ended(agent: int, folder: str) -> int | None:
    """Another process' child: how it ended is told by the lock that it did or did not give back."""
    try:
        handle = os.pidfd_open(agent)
    except ProcessLookupError:
        pass
    else:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll()
        os.close(handle)
    with open(os.path.join(folder, "agent.lock"), "rb") as lock:
        return None if lock.read().strip() else 0


def _words(code: int | None) -> str:
    if code is None:
        return "was killed or crashed"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _say(line: str) -> None:
    try:  # noqa: SIM105
        os.write(2, line.encode() + b"\n")
    except OSError:
        pass  # the log is on a full disk


if __name__ == "__main__":
    sys.exit(Keeper(sys.argv[1], sys.argv[3:]).run(int(sys.argv[2])))
