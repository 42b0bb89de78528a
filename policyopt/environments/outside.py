"""Calls of somebody else's code: with a time limit, in a thread of their own where they may wait, never in the way of the sampler."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any


class Overdue(Exception):
    """A call took longer than it may. Nobody knows what it has done by then, so its episode is given up."""


_LIMIT: contextvars.ContextVar[asyncio.Timeout | None] = contextvars.ContextVar("_LIMIT", default=None)
"""The limit of the call that is being made."""


class Outside:
    """Calls for one episode, one after the other.

    Coroutine functions run in the event loop; others in one thread of the episode's own, so that libraries which want to be
    called from one thread are. With ``instant`` they are called at once, without a limit. A call that waits too long is given
    up; its thread is left to it, and does not keep the process from ending.
    """

    def __init__(self, seconds: float = 30.0, instant: bool = False) -> None:
        self.seconds, self.instant = seconds, instant
        self._asked: queue.SimpleQueue[Any] | None = None

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns. Raises :class:`Overdue`, and whatever the function raises."""
        if self.instant or inspect.iscoroutinefunction(function):
            found = function(*args, **kwargs)
        else:
            found = await self._limited(self._in_thread(function, args, kwargs), function)
        return await self._limited(found, function) if inspect.isawaitable(found) else found

    async def _limited(self, waiting: Awaitable[Any], function: Callable[..., Any]) -> Any:
        """What is waited for, within the limit. A call in which others are made has the limit for what it does itself: the time of
        the others is not its own."""
        outer = _LIMIT.get()
        if outer is not None:
            outer.reschedule(None)
        try:
            async with asyncio.timeout(self.seconds) as limit:
                token = _LIMIT.set(limit)
                try:
                    return await waiting
                finally:
                    _LIMIT.reset(token)
        except TimeoutError:
            if not limit.expired():  # one of its own, which is told like any other error
                raise
            name = getattr(function, "__qualname__", repr(function))
            raise Overdue(f"{name} took longer than {self.seconds:g} s") from None
        finally:
            if outer is not None:
                outer.reschedule(asyncio.get_running_loop().time() + self.seconds)

    def _in_thread(self, function: Callable[..., Any], args: Any, kwargs: Any) -> asyncio.Future[Any]:
        if self._asked is None:
            self._asked = queue.SimpleQueue()
            threading.Thread(target=_carry_out, args=(self._asked,), daemon=True, name="episode").start()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._asked.put((function, args, kwargs, loop, done))
        return done

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        if self._asked is not None:
            self._asked.put(None)
            self._asked = None


def _carry_out(asked: queue.SimpleQueue[Any]) -> None:
    while (one := asked.get()) is not None:
        function, args, kwargs, loop, done = one
        try:
            found, error = function(*args, **kwargs), None
        except BaseException as raised:
            found, error = None, raised
        try:
            loop.call_soon_threadsafe(_settle, done, found, error)
        except RuntimeError:  # the run has gone on, and its loop is closed
            return


def _settle(done: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if done.done():  # given up meanwhile
        return
    if error is None:
        done.set_result(found)
    else:
        done.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
