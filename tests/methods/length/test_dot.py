"""The page of DOT."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from policyopt.items import Verdict
from policyopt.methods.group.grpo import grpo
from policyopt.methods.length.dot import OutliersCut, dot
from policyopt.sources.program import Context, Question, Response
from tests.cases.words._scripted import verdict
from tests.cases.words.dot import Drawn


def drawn(program: OutliersCut, lengths: Sequence[int], correct: Sequence[Any]) -> tuple[list[Response], Context]:
    sampler = Drawn(lengths, [1.0] * len(lengths))

    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [c if isinstance(c, Verdict) else verdict(c) for c in correct]

    context = Context(sampler, program, judge)  # type: ignore[arg-type]

    async def play() -> list[Response]:
        group = await sampler.generate(())
        for response in group:
            response.verdict = None
        sampler.generate = lambda *_, **__: _given(group)  # type: ignore[method-assign]
        return await program.draw(Question((), 99, (0, 0, 0)), context)

    async def _given(group: list[Response]) -> list[Response]:
        return group

    return asyncio.run(play()), context


def test_an_outlier_of_a_solved_prompt_is_cut_and_is_judged_again() -> None:
    lengths = [10] * 15 + [90]
    found, context = drawn(OutliersCut(size=16), lengths, [1] * 16)
    limit = 15 + 3 * math.sqrt(15 * 25 + 75**2) / 4
    assert [len(r.tokens) for r in found] == [10] * 15 + [math.floor(limit)]
    assert found[-1].verdict is None and not found[-1].finished and len(found[-1].logp) == math.floor(limit)
    assert all(r.verdict is not None and r.finished for r in found[:-1])
    assert context.tally == {"cut": 1}


@pytest.mark.parametrize("last", [0, Verdict.failure("it broke")])
def test_a_prompt_that_is_not_always_solved_is_left_alone(last: Any) -> None:
    lengths = [10] * 15 + [90]
    found, _ = drawn(OutliersCut(size=16, alpha=1.0), lengths, [1] * 15 + [last])
    assert [len(r.tokens) for r in found] == lengths


def test_ten_responses_have_no_outlier_of_three_deviations() -> None:
    for size, cut in ((10, False), (11, True)):
        lengths = [10] * (size - 1) + [5000]
        found, _ = drawn(OutliersCut(size=size), lengths, [1] * size)
        assert (len(found[-1].tokens) < 5000) == cut
    found, _ = drawn(OutliersCut(size=16, margin=20.0), [10] * 15 + [90], [1] * 16)
    assert len(found[-1].tokens) == 90, "within the margin"


def test_without_a_limit_it_is_grpo() -> None:
    assert OutliersCut(alpha=math.inf).threshold([1, 100]) == math.inf
    assert OutliersCut().threshold([7]) == OutliersCut(alpha=math.inf).threshold([7, 7]) == 7
    found, _ = drawn(OutliersCut(size=4, alpha=0.1), [7] * 4, [1] * 4)
    assert all(r.verdict is not None for r in found), "equally long ones are none too long"
    assert dot(group_size=8).replace(source=grpo().source) == grpo(kl_coef=0.0)
    assert dot(cov_frac=1e-3).get("regularizers.Proximal.tokens.fraction") == 1e-3 and dot(rounds=4).filter
