"""Become another program that dies with its parent: `python -I -S mortal.py PARENT COMMAND...`.

It is run as a file and imports next to nothing. Programs of others do not ask the kernel for it
themselves.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
