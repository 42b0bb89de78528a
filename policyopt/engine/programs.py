"""Rollout programs, carried out together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

X = TypeVar("X")


def carried_out(
    programs: Sequence[Awaitable[X]], begin: Callable[[], None] = lambda: None,
    within: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
) -> list[X]:  # fmt: skip
    """What awaitables give, awaited together in an event loop of their own, after ``begin`` was called in it and inside what
    ``within`` opens."""

    async def together() -> list[X]:
        try:
            begin()
        except BaseException:
            for program in programs:  # else Python warns that nobody awaits them
                getattr(program, "close", int)()
            raise
        async with within():
            return await asyncio.gather(*programs)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(together())
    with ThreadPoolExecutor(1) as pool:  # an event loop is running in this thread, such as a notebook's own
        return pool.submit(asyncio.run, together()).result()
