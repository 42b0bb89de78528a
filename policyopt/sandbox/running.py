"""Run a program between walls and within limits, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from policyopt.sandbox.filters import seccomp
from policyopt.sandbox.limits import Limits, Result, Status
from policyopt.sandbox.walls import ENVIRONMENT, NOBODY, STARTED, Line, check, command, walls
from policyopt.sandbox.watch import used

SETUP = 30.0
"""Seconds that building the walls may take, on a busy machine."""
LOOK = 0.02
"""Seconds between two looks at processes and memory."""
ENDING = 10.0
"""Seconds within which what was killed has to be gone."""

_NO_MEMORY = re.compile(r"MemoryError|std::bad_alloc|[Oo]ut of memory|Cannot allocate memory")


class SandboxError(RuntimeError):
    """The sandbox itself has failed: nothing can be said of the program."""


def run(
    program: Sequence[str],
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits | None = None,
    input: str | bytes = b"",
    *,
    reads: Sequence[str] = (),
) -> Result:
    """Run a program that nobody trusts, and wait for its end.

    Args:
        program: A command and its arguments, found in the system's directories.
        files: What lies in its working directory at the start, by relative path.
        limits: Bounds; unset: those of :class:`~policyopt.sandbox.limits.Limits`.
        input: What it reads from stdin.
        reads: Further directories that it sees, under the same path, read-only.

    Raises:
        UserError: There is no bubblewrap, or it cannot make namespaces here, or the command is not installed. Nothing has run.
        SandboxError: The walls could not be built this time.
    """
    limits = limits or Limits()
    check()
    with ExitStack() as stack:
        line = walls(command(program), files or {}, limits, reads, stack)
        given = input.encode("utf-8", "surrogatepass") if isinstance(input, str) else input
        return _Run(line, limits, given, stack).result()


class _Run:
    """One program from start to end; what leaves the block of ``stack``, in whatever way, leaves no process."""

    def __init__(self, line: Line, limits: Limits, given: bytes, stack: ExitStack) -> None:
        self.limits = limits
        self._left = memoryview(given)
        self._said: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._why: Status | None = None
        said, says = os.pipe()
        stack.callback(os.close, said)
        try:
            self.process = _started(line, says)
        finally:
            os.close(says)
        stack.callback(self._ended)
        self._exit = os.pidfd_open(self.process.pid)
        stack.callback(os.close, self._exit)
        # Whatever interrupts from here on: bwrap is killed, and the first process inside dies with it
        stack.callback(self._kill)
        self._root = self._first(said)
        self._inside: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._inside = os.pidfd_open(self._root)
            stack.callback(os.close, self._inside)
        stack.callback(self._emptied)
        self._begun = time.monotonic()

    def _first(self, said: int) -> int:
        """The number of the first process inside, which all others inside end with."""
        text, end = b"", time.monotonic() + SETUP
        while b"}" not in text:
            ready = select.select([said], [], [], max(0.0, end - time.monotonic()))[0]
            if not ready or not (more := os.read(said, 4096)):
                self.process.kill()
                error = self.process.communicate()[1].decode("utf-8", "replace").strip()
                raise SandboxError(f"bwrap did not start: {error[:200] or f'no word within {SETUP:g} s'}")
            text += more
        return int(json.loads(text[: text.index(b"}") + 1])["child-pid"])

    def result(self) -> Result:
        """Feed it, hear it and watch it until it has ended."""
        self._attend()
        seconds = time.monotonic() - self._begun
        if self._why is not None:
            self._emptied()
        self.process.wait()
        out, err = (bytes(self._said[name]) for name in ("stdout", "stderr"))
        if self._why is None and not out.startswith(STARTED):
            raise SandboxError(f"the program was not reached: {err.decode('utf-8', 'replace').strip()[:200]}")
        stdout, stderr = (text.decode("utf-8", "replace") for text in (out.removeprefix(STARTED), err))
        status, code = self._status(stderr, seconds)
        return Result(status, code, stdout, stderr, seconds, seccomp() is not None)

    def _attend(self) -> None:
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None and stdout is not None and stderr is not None
        for stream in (stdin, stdout, stderr):
            os.set_blocking(stream.fileno(), False)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._exit, selectors.EVENT_READ, "exit")
            waiting.register(stdout, selectors.EVENT_READ, "stdout")
            waiting.register(stderr, selectors.EVENT_READ, "stderr")
            waiting.register(stdin, selectors.EVENT_WRITE, "stdin")
            looked, ended = self._begun, False
            while not ended and self._why is None:
                for key, _ in waiting.select(LOOK):
                    if key.data == "exit":
                        ended = True
                    elif not (self._feed(key.fd) if key.data == "stdin" else self._hear(key.data, key.fd)):
                        waiting.unregister(key.fileobj)
                        if key.data == "stdin":
                            _shut(stdin)
                now = time.monotonic()
                if now - self._begun >= self.limits.wall and not ended:
                    self._why = "time"
                elif now - looked >= LOOK:
                    looked = now
                    self._look()
        # What it said before its end is in the pipes; what it left behind has no say any more
        for name, stream in (("stdout", stdout), ("stderr", stderr)):
            while self._why is None and select.select([stream], [], [], 0)[0] and self._hear(name, stream.fileno()):
                pass

    def _feed(self, fd: int) -> bool:
        """Write some of the input; whether there is more to write."""
        with contextlib.suppress(BlockingIOError):
            try:
                self._left = self._left[os.write(fd, self._left[: 1 << 16]) :]
            except BrokenPipeError:  # it reads no more
                return False
        return bool(self._left)

    def _hear(self, name: str, fd: int) -> bool:
        """Read some of what it says; whether there may be more. What is beyond the limit is never kept."""
        room = int(self.limits.output_kb * 1024) + len(STARTED) - sum(map(len, self._said.values()))
        try:
            data = os.read(fd, min(1 << 16, room + 1))
        except BlockingIOError:
            return True
        self._said[name] += data[:room]
        if len(data) > room:
            self._why = "output"
        return bool(data)

    def _look(self) -> None:
        count, resident = used(self._root)
        if count > self.limits.processes:
            self._why = "processes"
        elif resident > self.limits.memory_mb * 2**20:
            self._why = "memory"

    def _status(self, stderr: str, seconds: float) -> tuple[Status, int | None]:
        if self._why is not None:
            return self._why, None
        code = self.process.returncode
        # bwrap passes on what a shell would: 128 and the signal
        number = code - 128 if 128 < code <= 128 + signal.NSIG else max(0, -code)
        if number == signal.SIGXCPU or (number == signal.SIGKILL and seconds >= self.limits.cpu):
            return "time", None
        if code and _NO_MEMORY.search(stderr[-500:]):
            return "memory", None
        if number:
            return "signal", -number
        return ("exit" if code else "ok"), code

    def _kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()

    def _emptied(self) -> None:
        """Kill the first process inside, and wait until it is gone: the kernel ends all others first."""
        if self._inside is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._inside, signal.SIGKILL)
        select.select([self._inside], [], [], ENDING)

    def _ended(self) -> None:
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            _shut(stream)


def _started(line: Line, says: int) -> subprocess.Popen[bytes]:
    """bwrap itself, which says on ``says`` whom it has started."""
    arguments = [*line.arguments]
    place = arguments.index(line.bubblewrap) + 1
    arguments[place:place] = ["--json-status-fd", str(says)]
    who: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if line.as_nobody else {}
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/",
        pass_fds=[*line.fds, says], start_new_session=True, **who,
    )  # fmt: skip


def _shut(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.close()
