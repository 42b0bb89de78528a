"""What samplers have in common: programs that run together, requests that can be, and where a response ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from policyopt.models.stops import Stops
from policyopt.sources.program import Response, StopReason

X = TypeVar("X")


def carried_out(
    programs: Sequence[Awaitable[X]], begin: Callable[[], object] = lambda: None,
    within: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
) -> list[X]:  # fmt: skip
    """What awaitables give, awaited together in an event loop of their own, after ``begin`` was called and inside what
    ``within`` opens."""

    async def together() -> list[X]:
        async with within():
            return await asyncio.gather(*programs)

    try:
        begin()
    except BaseException:
        for program in programs:  # else Python warns that nobody awaits them
            getattr(program, "close", int)()
        raise
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(together())
    with ThreadPoolExecutor(1) as pool:  # an event loop is running in this thread, such as a notebook's own
        return pool.submit(asyncio.run, together()).result()


def hand_over(error: BaseException, waiting: Iterable[asyncio.Future[Any]]) -> None:
    """Give an error to whoever waits, rather than to the event loop."""
    for done in waiting:
        if not done.done():
            done.set_exception(error)


def check_request(tokens: Sequence[int], n: int, resume: Response | None) -> None:
    """Raises ``ValueError`` for a request that cannot be."""
    if n < 1 or (resume is not None and n != 1) or not len(tokens):
        raise ValueError(
            f"a request for {n} responses to {len(tokens)} tokens: at least one of each is needed, and one to resume"
        )


def ended(
    tokens: Sequence[int], eos: Collection[int], texts: Stops | None, stops: Iterable[Sequence[int]] = ()
) -> StopReason:
    """Why a response ends by its last token; "length" where it does not. ``eos`` are the end tokens, ``texts`` the stop texts
    of the run, ``stops`` the sequences that a program asked for."""
    if tokens[-1] in eos or (texts is not None and texts(tokens)):
        return "eos"
    last = (stop for stop in stops if stop[-1] == tokens[-1])
    return "stop" if any(tuple(tokens[-len(stop) :]) == tuple(stop) for stop in last) else "length"
