"""The page of spo-minimaximalist."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.games.spo_minimaximalist import Evenly, GroupAndQueue, spo_minimaximalist
from policyopt.sources.program import Context, Question, Response
from tests.batches import dlogp, random_batch
from tests.methods.shared_surrogates import same


def test_it_is_reinforce_on_win_rates_with_a_baseline_of_one_half() -> None:
    batch = random_batch()
    same(dlogp(spo_minimaximalist(), batch), dlogp(reinforce("constant", 0.5), batch.replace(reward=batch.wins)))


def test_a_circle_pushes_nowhere() -> None:
    nan = torch.nan
    batch = random_batch(groups=(3,))
    circle = torch.tensor([[nan, 1, 0], [0, nan, 1], [1, 0, nan]], dtype=torch.float64)
    assert dlogp(spo_minimaximalist(), batch.replace(beats=circle)).abs().max() == 0
    assert dlogp(spo_minimaximalist(), batch).abs().max() > 1e-2


def test_spread_evenly_a_token_is_credited_with_what_is_still_to_come() -> None:
    batch = random_batch(lengths=(4,) * 9)
    spread = Evenly()(batch)
    same(spread.token_reward, (batch.reward / 4)[:, None] * batch.mask)
    same(spread.total_reward(), batch.reward)
    recipe = spo_minimaximalist(dense=True)
    shaped = batch
    for part in recipe.shape:
        shaped = part(shaped)
    left = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)
    same(recipe.advantage(shaped)[:, :4], batch.wins[:, None] * left - 0.5)


class Counting:
    """A sampler whose responses are numbered over the whole run."""

    drawn = 0

    async def generate(self, tokens: Any, *, n: int = 1, **_: Any) -> list[Response]:
        first, self.drawn = self.drawn, self.drawn + n
        return [Response([first + i], [0.0], [0.0], "eos") for i in range(n)]


def test_a_queue_holds_the_last_responses_of_each_prompt_and_none_of_them_is_trained_on() -> None:
    sampler, notes = Counting(), dict[str, Any]()

    def draw(*prompt: int) -> tuple[list[int], list[int]]:
        question, context = Question(prompt, 4, (0, 0, 0)), Context(sampler, notes=notes)  # type: ignore[arg-type]
        rows = asyncio.run(GroupAndQueue(size=2, recent=3).draw(question, context))
        fresh, old = [r for r in rows if r.use == "train"], [r for r in rows if r.use == "pool"]
        assert len(fresh) == 2 and all(r.origin == 1 and len(r.logp) == len(r.entropy) == 1 for r in old)
        notes.update(json.loads(json.dumps(notes)))  # as through a checkpoint
        return [r.tokens[0] for r in fresh], [r.tokens[0] for r in old]

    assert draw(7, 8) == ([0, 1], [])
    assert draw(9) == ([2, 3], [])
    assert draw(7, 8) == ([4, 5], [0, 1])
    assert draw(7, 8) == ([6, 7], [1, 4, 5])
    assert draw(7, 8) == ([8, 9], [5, 6, 7]), "first in, first out"


def test_the_queue_is_asked_for_by_its_size() -> None:
    assert spo_minimaximalist(queue=5).source == GroupAndQueue(size=8, recent=5)
