"""The process in which a judge runs. The parent (:mod:`policyopt.judging.pool`) starts it and may kill it any time.

One frame in each direction is a length (4 bytes, big-endian) and JSON: nothing that this process sends can run code in
the parent. The parent sends the judge, then lists of items; the worker answers ``{"ready": true}`` with the
columns that the judge fills and how long a verdict may take, then a verdict for each item as soon as it has one. A judge
that has ``many`` (:mod:`policyopt.judging.calls`) gets a list at once, any other one item after the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Iterator
from typing import Any

from policyopt.items import Example, JudgeSpec, Verdict
from policyopt.judging import given
from policyopt.judging.blame import blamed, of_row
from policyopt.judging.calls import TooLong
from policyopt.judging.guard import guarded
from policyopt.judging.results import BadResult

SEEN = ("id", "prompt", "answer", "solution", "meta", "chat")
"""What a judge sees of an example."""

_POLL = 5.0
GRACE = 1.0
"""Seconds that a judge with limits of its own has beyond them."""


def send(sock: socket.socket, message: Any) -> None:
    """One frame. Lone surrogates are escaped by JSON, so any text goes through."""
    body = json.dumps(message).encode("ascii")
    sock.sendall(len(body).to_bytes(4, "big") + body)


def receive(sock: socket.socket, most: int = 1 << 32) -> Any:
    """The next frame. Raises ``EOFError`` when the other side has gone, and ``ValueError`` for one of more than ``most`` bytes
    or that is no JSON."""
    size = int.from_bytes(_exactly(sock, 4), "big")
    if size > most:
        raise ValueError(f"a frame of {size} bytes")
    try:
        return json.loads(_exactly(sock, size))
    except RecursionError:
        raise ValueError("nested too deep") from None


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
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guarded(fd)
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(fd)


def _hear_again() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _serve(fd: int) -> None:
    parent = os.getppid()
    # A batch system sends these to every process of a run. They are heard and not ignored, so that the judge's own children,
    # which a judge may want to end, do not inherit that.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    os.register_at_fork(after_in_child=_hear_again)
    sock = socket.socket(fileno=fd)
    hello = receive(sock)
    memory = hello["memory"]

    from policyopt.judging.judges import make_judge

    try:
        given.receive(hello["functions"])
        judge = make_judge(JudgeSpec(hello["judge"], hello["options"]))
    except BaseException as error:
        send(sock, {"error": blamed(error)})
        return
    # What loading took is the judge's affair; the limit is for what judging takes on top
    used = _virtual_memory()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    limit = max(hello["timeout"], getattr(judge, "patience", 0.0))
    several, together = hasattr(judge, "many"), getattr(judge, "together", False)
    # Where calls have limits of their own, these are to end them first
    patience = limit + (GRACE if several and not together else 0.0)
    columns = list(getattr(judge, "columns", ()))
    kinds = {"several": several, "together": together, "compares": getattr(judge, "compares", None)}
    send(sock, {"ready": True, "columns": columns, "patience": patience} | kinds)

    while True:
        while not select.select([sock], [], [], _POLL)[0]:
            if os.getppid() != parent:
                return
        items = [(Example(**seen | {"prompt": tuple(seen["prompt"])}), response) for seen, response in receive(sock)]
        longest = patience * (len(items) if together else 1) + 1.0
        for verdict in _verdicts(judge, items, limit, longest, memory):
            send(sock, dataclasses.asdict(dataclasses.replace(verdict, reason=verdict.reason[:500])))


def _verdicts(judge: Any, items: list[Any], limit: float, longest: float, memory: int) -> Iterator[Verdict]:
    """The verdict on each item, in order; a failed one for an exception."""
    found = judge.many(items, limit) if hasattr(judge, "many") else None
    for item in items:
        # Should the parent be gone when a judge hangs, the kernel ends this process
        signal.setitimer(signal.ITIMER_REAL, longest)
        reason = ""
        try:
            verdict = judge(*item) if found is None else next(found)
            if isinstance(verdict, BaseException):
                raise verdict
        except MemoryError:
            reason = f"judge ran out of memory ({memory >> 20} MB)"
        except TooLong:
            reason = f"judge took longer than {limit:g} s"
        except BadResult as error:
            reason = f"judge {error}"
        except BaseException as error:
            reason = blamed(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield Verdict.failure(of_row(reason, item[0].id)) if reason else verdict
