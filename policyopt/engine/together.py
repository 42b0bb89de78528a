"""Running rollout programs together, for samplers that programs await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

X = TypeVar("X")


def run_together(programs: Sequence[Awaitable[X]], begin: Callable[[], None]) -> list[X]:
    """Run programs to their end in an event loop of their own, after ``begin`` was called in it; what each returned, in
    order. An error in one of them ends the run and is raised."""

    async def together() -> list[X]:
        begin()
        return await asyncio.gather(*programs)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(together())
    with ThreadPoolExecutor(1) as pool:  # a notebook's own event loop is running in this thread
        return pool.submit(asyncio.run, together()).result()
