"""The page of reinforce."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.parts import SeqMeanTokenMean, TruncatedRatio
from policyopt.rows import make_batch
from tests.batches import TinyPolicy, dlogp, gradients, random_batch, ready
from tests.methods.shared_limits import alike, mean_reward


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("baseline", ["batch-mean", "group-mean"])
def test_a_mean_that_contains_the_row_itself_shrinks_the_gradient(baseline: Any, n: int, tiny: TinyPolicy) -> None:
    recipe = reinforce(baseline=baseline, group_size=n)
    alike(tiny.expected_gradient(recipe, n), -(n - 1) / n * tiny.gradient(mean_reward(tiny)))


def test_averaging_over_tokens_biases_the_gradient_where_lengths_differ(tiny: TinyPolicy) -> None:
    biased = tiny.expected_gradient(reinforce(baseline="none").replace(aggregate=SeqMeanTokenMean()), 2)
    assert (biased + tiny.gradient(mean_reward(tiny))).abs().max() > 1e-3


@pytest.mark.parametrize("bounded", [False, True])
def test_a_detached_ratio_makes_old_samples_unbiased_until_it_is_truncated(bounded: bool) -> None:
    """Responses of one token, drawn from an older policy."""
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(6, generator=g, dtype=torch.float64, requires_grad=True)
    logp, reward = theta.log_softmax(-1), torch.randn(6, generator=g, dtype=torch.float64)
    old = (theta.detach() + torch.randn(6, generator=g, dtype=torch.float64)).log_softmax(-1)
    batch = make_batch(mask=torch.ones(6, 1), reward=reward, old_logp=old[:, None], logp=logp[:, None])
    recipe = reinforce(baseline="none").replace(weight=(TruncatedRatio(low=None, high=0.1 if bounded else None),))
    per_row = 6 * gradients(recipe, ready(recipe, batch.replace(logp=logp[:, None].detach())))[1]["logp"][:, 0]
    got = torch.autograd.grad(logp, theta, per_row * old.exp(), retain_graph=True)[0]
    wanted = -torch.autograd.grad((logp.exp() * reward).sum(), theta)[0]
    assert torch.allclose(got, wanted) != bounded


# REINFORCE and its baselines -----------------------------------------------------------------------------------------


def test_a_row_of_twice_the_length_has_twice_the_gradient_and_one_without_advantage_none() -> None:
    batch = random_batch(groups=(3,), lengths=(2, 4, 5)).replace(reward=torch.tensor([1.0, 1.0, 0.0]))
    row = dlogp(reinforce(baseline="none"), batch).sum(-1)
    alike(row[1], 2 * row[0])
    assert row[2] == 0


def test_a_constant_on_all_rewards_changes_nothing_with_a_mean_baseline() -> None:
    batch = random_batch()
    recipe = reinforce(baseline="batch-mean")
    alike(dlogp(recipe, batch.replace(reward=batch.reward + 5)), dlogp(recipe, batch))
