"""The process above a judge. When the judge is gone, or the trainer or its end of the socket, it ends whatever the judge has
started, in whatever session that runs.

A process that calls ``setsid`` leaves its process group, and one whose parent has ended belongs to nobody. On Linux such
orphans go to the nearest process above them that adopts orphans, which is the guard; so they are found and ended. Elsewhere
there is no guard, and the process group is all that can be ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections import defaultdict

GUARDS = sys.platform.startswith("linux")
"""Whether there are guards here."""
_DEATH_SIGNAL, _ADOPTS_ORPHANS = 1, 36
"""What prctl calls PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER."""
_LONGEST = 5.0
"""Seconds that the guard tries to end what does not end."""


def guarded(fd: int) -> None:
    """Returns in a child process, which judges; this process becomes its guard and never returns.

    ``fd`` is the socket to the trainer. The guard ends as the judge ended.
    """
    if not GUARDS or ctypes.CDLL(None).prctl(_ADOPTS_ORPHANS, 1, 0, 0, 0):
        return
    heard, said = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(said, False)
    # A batch system sends the last two to every process of a run; the trainer decides when its judge ends
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(said, warn_on_full_buffer=False)
    guard, judge = os.getpid(), os.fork()
    if judge:
        _leave(_watched(judge, fd, heard))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(heard)
    os.close(said)
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)


def _watched(judge: int, fd: int, heard: int) -> int | None:
    """Wait for the end, and leave no process behind. Returns the wait status of a judge that ended by itself."""
    poll, status = select.poll(), None
    poll.register(fd, 0)  # nothing but that the other side has gone
    poll.register(heard, select.POLLIN)
    while status is None:
        gone = any(ready == fd for ready, _ in poll.poll())
        with contextlib.suppress(BlockingIOError):
            os.read(heard, 4096)
        if gone:
            break
        status = _reaped().get(judge)
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end:
        for pid in _below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            _reaped()
        except ChildProcessError:  # none is left
            break
        time.sleep(0.002)
    return status


def _reaped() -> dict[int, int]:
    """The wait status of children that have ended. Raises ``ChildProcessError`` where there is no child at all."""
    found: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if found:
                return found
            raise
        if not pid:
            return found
        found[pid] = status


def _below(root: int) -> list[int]:
    """The processes that come from ``root``, its children first."""
    children = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            children[int(stat.read().rpartition(b")")[2].split()[1])].append(int(name))
    found = children[root]
    for pid in found:  # grows as it goes
        found.extend(children[pid])
    return found


def _leave(status: int | None) -> None:
    """End as the judge has ended."""
    if status is not None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(0 if status is None else os.waitstatus_to_exitcode(status))
