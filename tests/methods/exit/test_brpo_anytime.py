"""The page of brpo-anytime."""

from __future__ import annotations

import torch

from policyopt.methods.exit.brpo_anytime import BudgetRelative, brpo_anytime
from policyopt.parts import Normalise
from policyopt.rows import Batch
from tests.batches import random_batch
from tests.methods.shared_judges import same


def exits_batch() -> Batch:
    """One thought with two cuts of two answers, and another."""
    cut, reward = [-1, 2, 2, 4, 4], [[0.0, 1, 0, 1, 1], [0.0, 0, 0, 0, 1]]
    batch = random_batch(groups=(10,), lengths=(6,) * 10)
    return batch.replace(
        reward=torch.tensor(reward).double().flatten(), cut=torch.tensor(cut * 2), origin=torch.tensor([0, 1, 1, 2, 2] * 2),
        thought=torch.repeat_interleave(torch.arange(2), 5),
    )  # fmt: skip


def test_each_part_of_a_thought_is_credited_with_the_budgets_that_it_serves() -> None:
    part = BudgetRelative(budgets=(1.0, 2.0), prior="uniform")
    batch = exits_batch()
    advantage = part(batch)
    score = torch.tensor([[0.5, 1.0], [0.0, 0.5]]).double()
    expected = part.returns(score) - part.baselines(score, torch.zeros(2))
    for row, k in ((0, 0), (5, 1)):
        same(advantage[row], torch.cat([expected[k, 0].expand(2), expected[k, 1].expand(4)]))
    assert advantage[[1, 2, 3, 4, 9], 0].tolist() == [0.5, -0.5, 0.0, 0.0, 0.5]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    same(part(batch[order]), advantage[order])


def test_without_cuts_brpo_is_reward_minus_group_mean() -> None:
    batch = random_batch()
    for prior in ("uniform", "linear", "base"):
        same(BudgetRelative(prior=prior)(batch), Normalise(scale="none")(batch))
    base = BudgetRelative(budgets=(1.0, 2.0), prior="base", baseline="v2only")(exits_batch())
    same(base[0], torch.full((6,), 0.25).double())
    assert brpo_anytime(thoughts=2, exits=2, answers=1).source.size == 6
