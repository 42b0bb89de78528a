"""Connections to servers, held in an event loop of their own, so that they stay alive while a run computes, and so that each is opened
and closed by one and the same task, as their libraries ask for."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LOCK = threading.Lock()
_LOOPS: list[asyncio.AbstractEventLoop] = []
os.register_at_fork(after_in_child=_LOOPS.clear)  # its thread is not there
_GOODBYE = 5.0
"""Seconds that connections may take to end when the process does."""


def _loop() -> asyncio.AbstractEventLoop:
    """The loop, in a thread that does not keep the process from ending."""
    with _LOCK:
        if not _LOOPS:
            _LOOPS.append(asyncio.new_event_loop())
            threading.Thread(target=_LOOPS[0].run_forever, daemon=True, name="environments").start()
            atexit.register(_end, _LOOPS[0])
        return _LOOPS[0]


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """End what is still held, such as servers that an environment has started."""

    async def ended() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_GOODBYE)

    if loop in _LOOPS:  # not in a process that was forked from this one
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(ended(), loop).result(_GOODBYE + 1)


async def elsewhere(work: Coroutine[Any, Any, R]) -> R:
    """What some work in that loop comes to; who stops waiting for it cancels it."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _loop()))


def now(work: Coroutine[Any, Any, R], seconds: float) -> R:
    """The same for callers who may wait. Raises ``TimeoutError`` where it takes longer."""
    return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), _loop()).result()


class Held(Generic[T]):
    """Something with a beginning and an end, ``async with open() as it``, that is there from :meth:`open` to :meth:`close`."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._opened = opened
        self._task: asyncio.Task[None] | None = None
        self._over: asyncio.Event | None = None
        self._it: T | None = None

    async def open(self) -> T:
        """The thing itself; in the loop of this module alone. Raises whatever keeps it from beginning."""
        ready: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._task = asyncio.ensure_future(self._hold(ready, self._over))
        try:
            self._it = await ready
        except BaseException:
            self._task.cancel()
            raise
        return self._it

    async def _hold(self, ready: asyncio.Future[T], over: asyncio.Event) -> None:
        try:
            async with self._opened() as it:
                if not ready.done():
                    ready.set_result(it)
                    await over.wait()
        except BaseException as error:  # also what a server says while it is being left
            if not ready.done():
                ready.set_exception(innermost(error))

    @property
    def it(self) -> T:
        """The thing, once it is open. Raises ``ConnectionError`` where it has ended by itself."""
        if self._it is None or self._task is None or self._task.done():
            raise ConnectionError("the connection to the server has ended")
        return self._it

    def close(self) -> None:
        """Let it end; from any thread, without waiting for it."""
        over = self._over
        if over is not None:
            _loop().call_soon_threadsafe(over.set)


def innermost(error: BaseException) -> Exception:
    """The first error of a group of them, and of groups in it: which task of a library it was does not matter."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else ConnectionError(f"the connection was given up: {error!r}")
