"""The page of xrpo."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.items import Verdict
from policyopt.methods.sampling.xrpo import Allocated, NoveltyAdvantage, xrpo
from policyopt.parts import Normalise
from policyopt.sources.program import Response, Round
from policyopt.training.rows import to_batch
from tests.asking import ask
from tests.batches import random_batch
from tests.methods.shared_trees import PROMPT, draw, prompt

# XRPO ----------------------------------------------------------------------------------------------------------------


def test_novelty_raises_unlikely_right_answers_alone() -> None:
    batch = random_batch()
    batch = batch.replace(reward=batch.correct)
    plain, raised = Normalise()(batch), NoveltyAdvantage()(batch)
    rise = (raised - plain)[batch.mask.bool()]
    assert (rise >= -1e-15).all() and (rise > 1e-3).any()
    assert (raised <= torch.where(plain > 0, 1.5 * plain, plain) + 1e-12).all()
    likely = NoveltyAdvantage().eta(batch) >= 1
    still = likely | (batch.correct == 0)
    torch.testing.assert_close(raised[still], plain[still])
    torch.testing.assert_close(NoveltyAdvantage()(batch.replace(old_logp=batch.old_logp - 3)), raised)


def test_the_budget_of_a_batch_goes_where_the_priority_is(sampler: LocalSampler) -> None:
    rule = Allocated(bonus=0.0)
    assert rule.priority(4, 0.0, 99) == 0.0, "equal rewards leave nothing to find out"
    assert rule.share([[1, 0, 1, 0], [1, 1, 1, 1]], 4) == [4, 0]
    assert Allocated(bonus=5.0).share([[1, 1, 1, 1], [0, 0]], 2) == [0, 2], "few responses, larger bonus"
    rollout = Allocated(size=6, base=3, phases=3)
    prompts = [prompt(i, 12, (*PROMPT, 40 + i)) for i in range(3)]
    drawn = draw(rollout, sampler, *prompts)
    assert sum(map(len, drawn)) == 18 and min(map(len, drawn)) >= 3
    assert [[r.tokens for r in rows] for rows in draw(rollout, sampler, *prompts)] == [
        [r.tokens for r in rows] for rows in drawn
    ]
    assert len(draw(Allocated(size=4, base=4, phases=1), sampler)[0]) == 4
    with pytest.raises(ValueError, match="base is 4, more than the 2"):
        Allocated(size=2)


def test_a_prompt_without_success_is_shown_solved_ones(sampler: LocalSampler) -> None:
    async def right(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(1.0, True, True, "") for _ in responses]

    async def wrong(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(0.0, False, True, "") for _ in responses]

    near, far, hard = (50, 51, 52, 53), (70, 71, 72, 73), (50, 51, 52, 54)
    prompts = [prompt(i, 6, tokens, by) for i, (tokens, by) in enumerate([(near, right), (far, right), (hard, wrong)])]
    solved, _, failed = draw(Allocated(size=6, base=2, phases=2, examples=1, bonus=9.0), sampler, *prompts)
    seeded = [r for r in failed if r.context]
    assert seeded and all(r.origin == 1 for r in seeded) and not any(r.context for r in solved)
    assert seeded[0].context == (*near, *solved[0].tokens, *hard), "the most similar problem, with its verified answer"
    batch = to_batch([hard] * len(failed), failed, [Verdict(0.0, False, True, "")] * len(failed), [0] * len(failed), 6)
    row = next(i for i, r in enumerate(failed) if r.context)
    asked = batch.prompt[row, : int(batch.prompt_mask[row].sum())].tolist()
    assert tuple(asked) == seeded[0].context
    said = sampler.run([sampler.logprobs(seeded[0].context, tuple(seeded[0].tokens), temperature=1.0)])[0]
    assert said.logp == pytest.approx(seeded[0].logp, abs=1e-6)
    plain = draw(Allocated(size=6, base=2, phases=2, examples=0), sampler, *prompts)[2]
    assert not any(r.context for r in plain)


def test_the_corpus_of_solved_problems_grows(sampler: LocalSampler) -> None:
    async def judge(score: float, responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(score, score > 0, True, "") for _ in responses]

    notes: dict[str, Any] = {}
    rollout = Allocated(size=4, base=2, phases=2, examples=2, bonus=9.0, corpus=3)

    def step(number: int, *asked: tuple[tuple[int, ...], float], room: int = 999) -> list[list[Response]]:
        prompts = [
            ask(sampler, tokens, 6, (0, number, i), functools.partial(judge, score), notes=notes, room=room)
            for i, (tokens, score) in enumerate(asked)
        ]
        return draw(rollout, sampler, *prompts)

    first, second, hard = (50, 51, 52, 53), (50, 51, 70, 71), (50, 51, 52, 54)
    [[solved, *_]] = step(0, (first, 1.0))
    [[other, *_]] = step(1, (second, 1.0))
    assert notes == json.loads(json.dumps(notes)) == {"solved": [[[*first], solved.tokens], [[*second], other.tokens]]}
    [rows] = step(2, (hard, 0.0))
    shown = (*second, *other.tokens, *first, *solved.tokens, *hard)
    assert {r.context for r in rows if r.origin} == {shown}, "solved at earlier steps, the nearest last"
    assert len(notes["solved"]) == 2
    [rows] = step(3, (first, 0.0))
    assert {r.context for r in rows if r.origin} == {(*second, *other.tokens, *first)}, "never its own answer"
    [rows] = step(4, (hard, 0.0), room=len(first) + len(solved.tokens) + len(hard))
    assert {r.context for r in rows if r.origin} == {(*first, *solved.tokens, *hard)}, "as many as there is room for"
    [[again, *_], _] = step(5, (first, 1.0), (hard, 1.0))
    step(6, ((60, 61), 1.0))
    assert [problem for problem, _ in notes["solved"]] == [[*first], [*hard], [60, 61]], "the latest"
    assert notes["solved"][0][1] == again.tokens
    Allocated(corpus=0).remember(notes, {})
    assert notes["solved"] == []


def test_programs_that_fail_do_not_leave_others_waiting(sampler: LocalSampler) -> None:
    async def broken(responses: Sequence[Response]) -> list[Verdict]:
        raise UserError("the judge is out")

    shared = Round()
    prompts = [
        (question, dataclasses.replace(context, sampler=sampler, round=shared))
        for question, context in (prompt(0, 6), prompt(1, 6, by=broken))
    ]

    async def together() -> None:
        await asyncio.wait_for(asyncio.gather(*(xrpo().source.draw(*p) for p in prompts)), 60)

    with pytest.raises(UserError, match="the judge is out"):
        asyncio.run(together())
