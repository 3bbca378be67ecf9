"""Which process is which: a pid is ours only together with the moment at which it started."""

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that existed: pids are used again, a pid with its start time in a boot is not."""

    pid: int
    started: int
    """In clock ticks since the machine booted, as the kernel tells it."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        started = _start_time(pid)
        return None if started is None else cls(pid, started, boot_id())

    def is_alive(self) -> bool:
        return self.boot == boot_id() and _start_time(self.pid) == self.started

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send it, if that process still lives; `group` reaches its children as well."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self.pid)
            try:
                if not self.is_alive():
                    return
                if group and os.getpgid(self.pid) == self.pid:
                    os.killpg(self.pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def wait(self, timeout: float) -> bool:
        """True as soon as it has ended, False if it still runs after `timeout` seconds."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.is_alive():
                return True
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return bool(poll.poll(max(0, timeout) * 1000)) or not self.is_alive()
        finally:
            os.close(handle)


def stop_all(processes: list[ProcessId], seconds: float) -> None:
    """Wait for processes that were told to end, together; end by force those that do not."""
    deadline = time.monotonic() + seconds
    for process in processes:
        if not process.wait(deadline - time.monotonic()):
            process.signal(signal.SIGKILL, group=True)
            process.wait(5)


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _start_time(pid: int) -> int | None:
    """None if there is no such process, or only what is left of one that ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name in front may hold anything
    return None if fields[0] in "ZX" else int(fields[19])
