"""A Python function as a judge: called as its signature asks, awaited where it is async, its result read.

A judge may have ``many(items, limit)``, an iterator over verdicts in the order of the items, an exception in the place of
one: an async function has several calls in flight, each with ``limit`` seconds, and a function that takes lists gets
all items at once (``together``). ``compares`` says of a function that compares responses whether an item of it holds two of them
("pair") or all that there are ("group"). ``patience`` is how many seconds a verdict may take at least, for judges that wait for
others.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError
from policyopt.items import Example, Verdict
from policyopt.judging.comparing import COLUMNS
from policyopt.judging.kinds import Judge
from policyopt.judging.results import BadResult, read_preference, read_preferences, read_result, read_verl
from policyopt.judging.signatures import COMPARING, Missing, arguments, style_of

if TYPE_CHECKING:
    import asyncio

IN_FLIGHT = 32
"""Calls of an async function that wait at the same time."""

ALONE = "one that scores each by itself is wanted"
"""What to do about a judge that compares where that is no use."""

Item = tuple[Example, str]
Found = Verdict | BaseException


class TooLong(Exception):
    """A call has taken longer than its limit."""


def fills(judge: Judge, *columns: str) -> Judge:
    """The judge, which fills these columns beside what every judge says."""
    judge.columns = columns  # type: ignore[attr-defined]
    return judge


def around(inner: Judge, change: Callable[[Example, str, Verdict], Verdict], *columns: str) -> Judge:
    """A judge that asks another one first and says something more of each response; it fills the columns of both.

    Raises :class:`~policyopt.errors.UserError` where the other one compares responses.
    """
    if getattr(inner, "compares", None):
        raise UserError(f"it asks a judge that compares responses: {ALONE}")

    def judge(example: Example, response: str) -> Verdict:
        return change(example, response, inner(example, response))

    def many(items: Sequence[Item], limit: float) -> Iterator[Found]:
        for item, found in zip(items, inner.many(items, limit), strict=True):  # type: ignore[attr-defined]
            yield found if isinstance(found, BaseException) else change(*item, found)

    if hasattr(inner, "many"):
        judge.many = many  # type: ignore[attr-defined]
    judge.together = getattr(inner, "together", False)  # type: ignore[attr-defined]
    judge.patience = getattr(inner, "patience", 0.0)  # type: ignore[attr-defined]
    return fills(judge, *getattr(inner, "columns", ()), *columns)


def judge_from(call: Callable[..., Any], options: Mapping[str, Any]) -> Judge:
    """A function as a judge. Raises ``TypeError`` for a signature that no judge has."""
    signature = inspect.signature(call)
    style = style_of(signature, options)
    if style is None:
        raise TypeError(f"{getattr(call, '__name__', call)}{signature} cannot be called as a judge")

    def read(result: Any, response: Any = None) -> Verdict:
        if style == "group":
            return read_preferences(result, len(response))
        return {"verl": read_verl, "pair": read_preference}.get(style, read_result)(result)

    def called(items: Sequence[Item]) -> Any:
        try:
            positional, keywords = arguments(style, signature, items, options)
        except Missing as error:
            raise BadResult(str(error)) from None
        return call(*positional, **keywords)

    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    if style == "lists":
        made = of_lists(awaited(called) if is_async else called, read)
    elif is_async:

        async def one(example: Example, response: str) -> Verdict:
            return read(await called([(example, response)]), response)

        made = in_flight(one)
    else:

        def made(example: Example, response: str) -> Verdict:
            return read(called([(example, response)]), response)

    if style not in COMPARING:
        return fills(made, *getattr(call, "columns", ()))
    made.compares = style  # type: ignore[attr-defined]
    return fills(made, *COLUMNS)


def awaited(call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """An async function, waited for."""
    import asyncio

    async def waits(*args: Any) -> Any:
        return await call(*args)

    return lambda *args: asyncio.run(waits(*args))


def of_lists(call: Callable[[Sequence[Item]], Any], read: Callable[[Any], Verdict]) -> Judge:
    """A judge from a function that returns one result for each of several items.

    Where a call for several raises, each is tried by itself, so that an item which it cannot take costs no other one.
    """

    def judge(example: Example, response: str) -> Verdict:
        [verdict] = batch([(example, response)])
        return verdict

    def batch(items: Sequence[Item]) -> list[Verdict]:
        found = call(items)
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, list | tuple) or len(found) != len(items):
            what = f"{len(found)} results" if isinstance(found, list | tuple) else f"one {type(found).__name__}"
            raise BadResult(f"returned {what} for {len(items)} completions, expected a list with one for each")
        return [read(one) for one in found]

    def many(items: Sequence[Item], limit: float) -> Iterator[Found]:
        try:
            yield from batch(items)
        except (Exception, SystemExit):
            for item in items:
                try:
                    yield judge(*item)
                except (Exception, SystemExit) as error:
                    yield error

    judge.many, judge.together = many, True  # type: ignore[attr-defined]
    return judge


def in_flight(call: Callable[[Example, str], Awaitable[Verdict]], parallel: int = IN_FLIGHT) -> Judge:
    """A judge from an async function, of which ``parallel`` calls wait at the same time."""
    import asyncio  # workers of other judges start without it

    loop = asyncio.new_event_loop()  # one for all calls: what they hold open lives on in it

    async def limited(item: Item, limit: float, gate: asyncio.Semaphore) -> Found:
        async with gate:
            clock = asyncio.timeout(limit)
            try:
                async with clock:
                    return await call(*item)
            except (Exception, SystemExit) as error:
                return TooLong() if clock.expired() else error

    def many(items: Sequence[Item], limit: float) -> Iterator[Found]:
        gate = asyncio.Semaphore(parallel)
        tasks = [loop.create_task(limited(item, limit, gate)) for item in items]
        for task in tasks:
            yield loop.run_until_complete(task)

    async def once(example: Example, response: str) -> Verdict:
        return await call(example, response)

    def judge(example: Example, response: str) -> Verdict:
        return loop.run_until_complete(once(example, response))

    judge.many = many  # type: ignore[attr-defined]
    return judge
