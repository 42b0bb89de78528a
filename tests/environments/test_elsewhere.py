"""Connections are opened and closed by one task, stay alive while nobody looks, and end with the process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from policyopt.environments.elsewhere import Held, elsewhere, innermost, now


class Line:
    """A connection that remembers who opened and who closed it, and beats."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.beats = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Line]:
        self.tasks.append((threading.current_thread().name, asyncio.current_task()))
        beating = asyncio.ensure_future(self.beat())
        try:
            yield self
        finally:
            beating.cancel()
            self.tasks.append((threading.current_thread().name, asyncio.current_task()))

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            self.beats += 1


def test_one_task_opens_and_closes_and_the_connection_lives_while_a_run_computes() -> None:
    line = Line()
    held = Held(line.open)

    async def episode() -> None:
        assert await elsewhere(held.open()) is line
        time.sleep(0.3)  # the run computes
        assert held.it is line
        held.close()

    asyncio.run(episode())
    end = time.monotonic() + 10
    while len(line.tasks) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert line.tasks[0] == line.tasks[1] and line.tasks[0][0] == "environments"
    assert line.beats > 5
    with pytest.raises(ConnectionError, match="the connection to the server has ended"):
        held.it  # noqa: B018


def test_what_keeps_it_from_beginning_is_said() -> None:
    @contextlib.asynccontextmanager
    async def refused() -> AsyncIterator[None]:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [OSError("nobody there"), OSError("nor there")])])
        yield

    with pytest.raises(OSError, match="nobody there"):
        now(Held(refused).open(), 10)
    assert str(innermost(ValueError("x"))) == "x"


def test_who_stops_waiting_cancels_the_work() -> None:
    seen = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(elsewhere(long()), 0.1)

    asyncio.run(impatient())
    end = time.monotonic() + 10
    while not seen and time.monotonic() < end:
        time.sleep(0.01)
    assert seen == ["cancelled"]
    with pytest.raises(TimeoutError):
        now(long(), 0.1)


SCRIPT = """
import contextlib
from policyopt.environments.elsewhere import Held, now

@contextlib.asynccontextmanager
async def line():
    try:
        yield 1
    finally:
        print("closed", flush=True)

held = Held(line)
print(now(held.open(), 10), flush=True)
"""


def test_what_is_held_ends_with_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "closed"] and not done.stderr
