"""The page of Parrot."""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from policyopt.methods.judge.parrot import Identified, non_dominated, parrot
from policyopt.rows import Batch
from policyopt.sources.program import Context, Question, Response
from tests.batches import dlogp, random_batch

ID = torch.tensor([0, 0, 0, 1, 1])


def judged(rewards: list[list[float]]) -> Batch:
    batch = random_batch(groups=(5,))
    said = torch.tensor(rewards, dtype=torch.float64)
    return batch.replace(**{"reward_id": ID, "component[a]": said[:, 0], "component[b]": said[:, 1]})


def test_only_what_is_not_dominated_teaches_and_by_the_reward_that_was_asked_for() -> None:
    batch = judged([[0.8, 0.1], [0.5, 0.5], [0.5, 0.4], [0.9, 0.3], [0.9, 0.3]])
    gradient = dlogp(parrot(rewards=("a", "b")), batch)
    rows = [0.8 / 2, 0.5 / 2, 0.0, 0.3 / 2, 0.3 / 2]
    torch.testing.assert_close(gradient, -torch.tensor(rows, dtype=torch.float64)[:, None] * batch.mask)


def test_a_rising_map_of_one_reward_leaves_the_mask_and_one_reward_keeps_the_best() -> None:
    rewards = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    within = torch.arange(12) % 2
    kept = non_dominated(rewards, within)
    mapped = torch.cat([rewards[:, :1].exp() * 5, rewards[:, 1:]], 1)
    assert torch.equal(kept, non_dominated(mapped, within)) and kept.any() and not kept.all()
    one = non_dominated(torch.tensor([[1.0], [3.0], [3.0], [2.0]]), torch.zeros(4))
    assert one.tolist() == [False, True, True, False]


class Told:
    """A sampler that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, int]] = []

    async def generate(self, tokens: Any, *, n: int, **how: Any) -> list[Response]:
        self.asked.append((tokens, n))
        return [Response([1], [-1.0], [0.1], "eos") for _ in range(n)]


def test_each_row_is_asked_for_one_reward_and_a_trained_policy_for_all() -> None:
    def ask(**fields: Any) -> tuple[list[Any], list[Response]]:
        sampler, program = Told(), Identified(rewards=("true", "proxy"), prefix="<{}> ", **fields)
        context = Context(sampler, program, frame=lambda text: tuple(map(ord, text)))  # type: ignore[arg-type]
        rows = asyncio.run(program.draw(Question((9,), 8, (0, 0, 0), text="1+1=?"), context))
        return [("".join(map(chr, tokens)), n) for tokens, n in sampler.asked], rows

    asked, rows = ask(size=5)
    assert asked == [("<true> 1+1=?", 3), ("<proxy> 1+1=?", 2)]
    assert [r.columns["reward_id"] for r in rows] == [0, 0, 0, 1, 1]
    assert rows[-1].context == tuple(map(ord, "<proxy> 1+1=?")), "it is trained on behind what it was asked"
    assert ask(size=1, together=True)[0] == [("<true> <proxy> 1+1=?", 1)]
