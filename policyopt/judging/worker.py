"""The process in which a judge runs. The parent (:mod:`policyopt.judging.pool`) starts it and may kill it any time.

One frame in each direction is a length (4 bytes, big-endian) and JSON: nothing that this process sends can run code in
the parent. The parent sends the judge, then lists of items; the worker answers ``{"ready": true}`` with the
columns that the judge fills, then a verdict for each item as soon as it has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
from typing import Any

_POLL = 5.0


def send(sock: socket.socket, message: Any) -> None:
    """One frame. Lone surrogates are escaped by JSON, so any text goes through."""
    body = json.dumps(message).encode("ascii")
    sock.sendall(len(body).to_bytes(4, "big") + body)


def receive(sock: socket.socket) -> Any:
    """The next frame. Raises ``EOFError`` when the other side has gone."""
    return json.loads(_exactly(sock, int.from_bytes(_exactly(sock, 4), "big")))


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _virtual_memory() -> int:
    """Bytes of address space in use now (0 where the system does not say)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def main(fd: int) -> None:
    """Judge what comes over the socket ``fd`` until the parent closes it or is gone."""
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(fd)


def _hear_again() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _serve(fd: int) -> None:
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A batch system sends these to every process of a run. They are heard and not ignored, so that the judge's own children,
    # which a judge may want to end, do not inherit that.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    os.register_at_fork(after_in_child=_hear_again)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sock = socket.socket(fileno=fd)
    hello = receive(sock)
    limit, memory = hello["timeout"] + 1.0, hello["memory"]

    from policyopt.items import Example, JudgeSpec, Verdict
    from policyopt.judging.functions import BadResult
    from policyopt.judging.judges import make_judge

    try:
        judge = make_judge(JudgeSpec(hello["judge"], hello["options"]))
    except BaseException as error:
        send(sock, {"error": f"{type(error).__name__}: {error}"})
        return
    # What loading took is the judge's affair; the limit is for what judging takes on top
    used = _virtual_memory()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    send(sock, {"ready": True, "columns": list(getattr(judge, "columns", ()))})

    while True:
        while not select.select([sock], [], [], _POLL)[0]:
            if os.getppid() != parent:
                return
        for id, prompt, answer, meta, response in receive(sock):
            # Should the parent be gone when a judge hangs, the kernel ends this process
            signal.setitimer(signal.ITIMER_REAL, limit)
            try:
                verdict = judge(Example(id, tuple(prompt), answer, None, meta), response)
            except MemoryError:
                verdict = Verdict(0.0, False, False, f"judge ran out of memory ({memory >> 20} MB)", failed=True)
            except BadResult as error:
                verdict = Verdict(0.0, False, False, f"judge {error}", failed=True)
            except BaseException as error:
                verdict = Verdict(0.0, False, False, f"judge raised {type(error).__name__}: {error}", failed=True)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            parts = dict(verdict.parts)
            send(sock, [verdict.score, verdict.correct, verdict.formatted, verdict.reason[:500], verdict.failed, parts])
