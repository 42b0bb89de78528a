"""The page of mo-grpo."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.mo_grpo import mo_grpo, score_regression
from tests.batches import random_batch, ready
from tests.methods.shared_limits import alike


def test_only_the_ratio_of_the_weights_counts_and_a_weight_of_0_is_no_component() -> None:
    batch = random_batch().replace(token_reward=None)
    one = mo_grpo(weights=(("correct", 0.3), ("formatted", 0.2))).set("advantage.eps", 0.0)
    ten = mo_grpo(weights=(("correct", 3.0), ("formatted", 2.0))).set("advantage.eps", 0.0)
    alike(ready(one, batch).advantage, ready(ten, batch).advantage)
    alone = mo_grpo(weights=(("correct", 1.0), ("formatted", 0.0)))
    alike(ready(alone, batch).advantage, ready(grpo(), batch.replace(reward=batch.correct)).advantage)


def test_a_score_that_hardly_differs_hardly_counts() -> None:
    batch = random_batch(groups=(4,)).replace(token_reward=None, correct=torch.tensor([1.0, 0, 1, 0]).double())
    batch = batch.replace(formatted=torch.tensor([0.0, 0.01, 0, 0.01]).double())
    advantage = ready(mo_grpo(), batch).advantage[:, 0]
    assert (advantage[[0, 2]] > 0).all(), "where each is normalised first, the two cancel"


def test_the_regression_is_a_mean_over_samples_and_scores() -> None:
    predicted, label = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    alike(score_regression(predicted, label), torch.tensor(2.0))
