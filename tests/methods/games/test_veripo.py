"""The page of veripo."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from policyopt.items import Verdict
from policyopt.methods.games.veripo import FewerEasy, VerifiedGroup, VerifiedPairs, repetition, veripo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.preference.dpo import dpo
from policyopt.objective import credit, token_gradients
from policyopt.parts import LastAccuracy
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Context, Question, Response


def rollouts(correct: Sequence[float], lengths: Sequence[int], group: Sequence[int], origin: int = 0) -> Batch:
    n, width = len(correct), max(lengths)
    chance = torch.Generator().manual_seed(n)
    mask = torch.tensor([[float(t < k) for t in range(width)] for k in lengths]).double()
    logp, old, ref = (-torch.rand(n, width, generator=chance).double() for _ in range(3))
    return make_batch(
        mask=mask, logp=logp, old_logp=old, ref_logp=ref, reward=torch.tensor(correct).double(),
        correct=torch.tensor(correct).double(), group=torch.tensor(group), origin=torch.full((n,), origin),
        tokens=torch.arange(n * width).view(n, width),
    )  # fmt: skip


def pairs(batch: Batch, part: VerifiedPairs | None = None) -> list[list[int]]:
    return torch.stack((part or VerifiedPairs())(batch), 1).tolist()


def test_the_longest_clean_response_stands_against_each_flawed_one() -> None:
    batch = rollouts([1, 0, 1, 1, 0, 0, 1, 1], [2, 4, 3, 3, 2, 3, 2, 2], [0, 0, 0, 0, 1, 1, 2, 2])
    assert pairs(batch) == [[2, 1]], "none of the prompt without a right one, none where all are clean"
    contradicts = batch.replace(consistency=torch.tensor([0.0, 1, -1, 0, 0, 0, 0, -1]).double())
    assert pairs(contradicts) == [[3, 1], [3, 2], [6, 7]], "right answers that contradict their reasoning are flawed"
    again = batch.replace(tokens=batch.tokens.index_fill(0, torch.tensor([2]), 7))
    assert pairs(again, VerifiedPairs(piece=1)) == [[3, 1], [3, 2]]


def test_repetition_is_the_share_of_pieces_that_were_there_before() -> None:
    assert repetition([1, 2, 3, 4], 2) == 0 and repetition([1], 2) == 0
    assert repetition([1, 2, 1, 2, 1, 2], 2) == pytest.approx(3 / 5)


def both() -> tuple[Batch, Batch, Batch]:
    new = rollouts([1, 0, 1, 0], [3, 2, 2, 3], [0, 0, 1, 1])
    back = rollouts([1, 0, 0], [2, 3, 3], [2, 2, 2], origin=1)
    columns = {name: torch.cat([x, back.columns()[name]]) for name, x in new.columns().items()}
    return new, back, make_batch(**columns)


def test_new_rows_are_grpos_and_those_that_came_back_are_dpos() -> None:
    new, back, batch = both()
    recipe = veripo(beta=0.4)
    found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp})[1]["logp"]
    plain, contrast = grpo(kl_coef=0.0), dpo(0.4)
    of_new = token_gradients(plain, credit(plain, new), {"logp": new.logp})[1]["logp"]
    of_back = token_gradients(contrast, credit(contrast, back), {"logp": back.logp})[1]["logp"]
    # Each row counts alike: the mean over all rows is that of each phase by its share of them.
    torch.testing.assert_close(found[:4], of_new * 4 / 7)
    torch.testing.assert_close(found[4:], of_back * 3 / 7)


@pytest.mark.parametrize("part", [0, 1])
def test_a_step_of_one_phase_alone_is_that_method(part: int) -> None:
    batch = both()[part]
    recipe, plain = veripo(beta=0.4), (grpo(kl_coef=0.0), dpo(0.4))[part]
    mine, theirs = (token_gradients(r, credit(r, batch), {"logp": batch.logp}) for r in (recipe, plain))
    torch.testing.assert_close(mine, theirs)


def test_without_a_clean_response_what_came_back_teaches_nothing() -> None:
    batch, recipe = rollouts([0, 0], [2, 2], [0, 0], origin=1), veripo()
    loss, found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp})
    assert loss == 0 and found["logp"].abs().max() == 0


class Counting:
    """A sampler that counts what it draws."""

    def __init__(self) -> None:
        self.drawn = 0

    async def generate(self, tokens: Any, *, n: int, **_: Any) -> list[Response]:
        self.drawn += n
        return [Response([i], [0.0], [0.0], "eos") for i in range(n)]


def take(
    right: Sequence[bool], earlier: tuple[Response, ...] = (), said: Any = None, number: int = 1
) -> tuple[list[Response], int]:
    async def judge(responses: Sequence[Response]) -> list[Verdict]:
        return [Verdict(float(ok), ok, True, "", parts=said or {}) for ok in right]

    sampler, program = Counting(), VerifiedGroup(size=len(right))
    context = Context(sampler, program, judge)  # type: ignore[arg-type]
    return asyncio.run(program.draw(Question((), 4, (0, 0, number), earlier=earlier), context)), sampler.drawn


def test_groups_with_pairs_come_back_once_and_nothing_is_drawn_for_them() -> None:
    first, drawn = take([True, False])
    assert drawn == 2 and all(r.later and r.origin == 0 and r.use == "train" for r in first)
    second, drawn = take([True, False], tuple(first))
    assert drawn == 0 and second == first and all(r.origin == 1 and not r.later for r in second)
    assert [take([True, False], number=i)[0][0].later for i in range(6)] == [False, True] * 3, "every other one"
    for alike in ([True, True], [False, False]):
        assert not any(r.later for r in take(alike)[0])
    assert not any(r.later for r in take([True, False], said={"consistency": -1.0})[0]), "no response is clean"


def test_prompts_that_are_always_right_come_less_often() -> None:
    batch = rollouts([1, 1, 1, 0], [1] * 4, [0, 0, 1, 1])
    remembered = LastAccuracy()(batch)
    assert remembered.tolist() == [[1.0], [1.0], [0.5], [0.5]]
    memory = torch.tensor([[1.0], [0.5], [torch.nan], [0.0]])
    torch.testing.assert_close(FewerEasy(drop=0.8).weights(memory), torch.tensor([0.2, 1.0, 1.0, 1.0]))
