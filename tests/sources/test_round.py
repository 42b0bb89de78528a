"""Programs of a round wait for each other, and for nobody who has left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from policyopt.sources.program import Prompt, Round


def together(*programs: Any) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*programs, return_exceptions=True), 10)

    return asyncio.run(run())


async def member(shared: Round, number: int, times: int) -> list[dict[tuple[int, ...], Any]]:
    async with shared:
        found = []
        for i in range(times):
            for _ in range(3 * number):  # they come at unlike times
                await asyncio.sleep(0)
            found.append(await shared.meet((0, 0, number), (number, i)))
        return found


def test_each_sees_what_all_have_shown() -> None:
    shared = Round()
    found = together(*(member(shared, n, 3) for n in (2, 0, 1)))
    for i in range(3):
        for seen in found:
            assert list(seen[i].items()) == [((0, 0, n), (n, i)) for n in range(3)], "in the order of their keys"


def test_who_leaves_is_not_waited_for() -> None:
    shared = Round()
    long, short = together(member(shared, 0, 4), member(shared, 1, 2))
    assert [len(seen) for seen in long] == [2, 2, 1, 1]
    assert len(short) == 2


def test_who_fails_leaves() -> None:
    async def broken(shared: Round) -> None:
        async with shared:
            await asyncio.sleep(0)
            raise RuntimeError("out")

    shared = Round()
    seen, error = together(member(shared, 0, 1), broken(shared))
    assert [len(x) for x in seen] == [1]
    assert isinstance(error, RuntimeError)


def test_a_prompt_of_its_own_has_a_round_of_its_own() -> None:
    one, two = Prompt((1,), 4, (0,)), Prompt((2,), 4, (1,))
    assert one.round is not two.round
    [[seen]] = together(member(one.round, 5, 1))
    assert seen == {(0, 0, 5): (5, 0)}


@pytest.mark.parametrize("count", [1, 5])
def test_a_round_can_be_used_again(count: int) -> None:
    shared = Round()
    for _ in range(2):
        found = together(*(member(shared, n, 1) for n in range(count)))
        assert all(len(seen) == count for [seen] in found)
