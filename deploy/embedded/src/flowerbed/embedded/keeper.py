"""Waits for the supervisor to end, then becomes another: `keeper.py SUPERVISOR-PID COMMAND...`.

A supervisor that ends as it should ends its keeper first. The supervisor in turn starts a keeper
that was killed. It runs without site-packages, so that it is small and hardly ever at fault.
"""

import os
import select
import sys
import time

HEALTHY_AFTER = 10.0
LONGEST_PAUSE = 2.0


def wait_for_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if os.getppid() == pid:  # else it ended before we looked, and its number may be another's
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll()
    os.close(handle)


def main() -> None:
    pid, command = int(sys.argv[1]), sys.argv[2:]
    began = time.monotonic()
    wait_for_end(pid)
    if time.monotonic() - began < HEALTHY_AFTER:  # one that never stays must not be a busy loop
        time.sleep(LONGEST_PAUSE)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
