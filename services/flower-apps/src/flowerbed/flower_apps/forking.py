"""Fork workers from a process that has imported already what they need.

    keeper ── what it will run, three open files ──> nursery ── fork ──> worker
    keeper <── its pid; once it has ended, how ───── nursery

Flower and torch take seconds of a processor to import, a fork takes milliseconds. Linux alone.
Whoever is forked dies with the nursery, and the nursery with its keeper (see `nursery`).
"""

import ctypes
import gc
import json
import os
import random
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

FLAG = "--nursery"
"""The argument of a program that is to fork workers; its standard input is its keeper's socket."""
LONGEST_ASKED = 4096
IS_POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def serve(load: Callable[[str], None]) -> None:
    """Fork a worker at each request. Returns in the worker, which has its files as 0, 1 and 2.

    `load` is told before the fork what the worker will run. It ends when its keeper goes away.
    """
    control = socket.socket(fileno=os.dup(0))
    children: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == control.fileno():
                    if _forked(control, children, selector, load):
                        return
                else:
                    selector.unregister(key.fd)
                    _tell_end(control, children.pop(key.fd), key.fd)


def _forked(
    control: socket.socket,
    children: dict[int, int],
    selector: selectors.BaseSelector,
    load: Callable[[str], None],
) -> bool:
    """Whether this is the worker now."""
    asked, files, _, _ = socket.recv_fds(control, LONGEST_ASKED, 3)
    if not asked:
        os._exit(0)
    try:
        load(asked.decode())
    except Exception:  # the worker will find the same, and tell it
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # or each worker's collections would copy all these pages
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        die_with(parent)
        control.close()
        for pidfd in children:
            os.close(pidfd)
        _take(files)
        random.seed()
        return True
    with suppress(OSError):  # whoever of the two comes first
        os.setpgid(pid, pid)
    for file in files:
        os.close(file)
    pidfd = os.pidfd_open(pid)
    children[pidfd] = pid
    selector.register(pidfd, selectors.EVENT_READ)
    _say(control, pid=pid)
    return False


def _take(files: Sequence[int]) -> None:
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)


def _tell_end(control: socket.socket, pid: int, pidfd: int) -> None:
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    _say(control, ended=pid, code=os.waitstatus_to_exitcode(status))


def _say(control: socket.socket, **told: int) -> None:
    with suppress(OSError):  # the keeper is gone: the next look at the socket ends this
        control.send(json.dumps(told).encode())
