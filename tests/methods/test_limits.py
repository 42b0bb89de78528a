"""What the sources of the methods state: unbiasedness, reductions to the parent, and who gets which gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.aggregation.luspo import luspo
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.parts import Normalise, RatioTimesAdvantage, SeqMeanTokenSum
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import TinyPolicy, dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_limits import alike, mean_reward


@pytest.mark.parametrize(
    "recipe",
    [
        reinforce(baseline="none"),
        reinforce(baseline="constant", constant=-3.7),
        reinforce(baseline="none").replace(surrogate=RatioTimesAdvantage()),
        rloo(kl_coef=0.0),
        remax(kl_coef=0.0).replace(aggregate=SeqMeanTokenSum()),
    ],
    ids=["no baseline", "constant", "as a ratio", "leave one out", "greedy response"],
)
def test_the_expected_gradient_is_that_of_the_mean_reward(recipe: Recipe, tiny: TinyPolicy) -> None:
    alike(tiny.expected_gradient(recipe, 2), -tiny.gradient(mean_reward(tiny)))


@pytest.mark.parametrize(
    "recipe", [grpo(kl_coef=0.0), dr_grpo(), gspo(), dapo().replace(shape=())], ids=lambda r: r.name
)
def test_on_policy_a_clipped_ratio_has_the_gradient_of_reinforce(recipe: Recipe) -> None:
    batch = on_policy(random_batch(gaps=True))
    score = reinforce(baseline="none", group_size=2).replace(advantage=recipe.advantage, aggregate=recipe.aggregate)
    alike(dlogp(recipe, batch), dlogp(score, batch))
    ratio, plain = (gradients(r, ready(r, batch))[0] for r in (recipe, score))
    assert not torch.allclose(ratio, plain)  # the same gradient, not the same value


def test_grpo_with_binary_rewards() -> None:
    right = torch.tensor([1.0, 1, 0, 1, 0, 1, 1, 1], dtype=torch.float64)
    batch = make_batch(mask=torch.ones(8, 1), reward=right, group=torch.zeros(8))
    p = float(right.mean())
    wanted = right * math.sqrt((1 - p) / p) - (1 - right) * math.sqrt(p / (1 - p))
    alike(Normalise(ddof=0, eps=0.0)(batch)[:, 0], wanted)


@pytest.mark.parametrize("make", [grpo, gspo, luspo, cispo])
def test_group_normalised_methods_ignore_shift_and_scale_of_rewards(make: Any) -> None:
    batch, recipe = random_batch(groups=(4, 3, 2), drift=1e-4), make().set("advantage.eps", 0.0)
    scale = torch.tensor([2.0, 0.3, 5.0], dtype=torch.float64)[batch.group]
    alike(dlogp(recipe, batch.replace(reward=batch.reward * scale + batch.group)), dlogp(recipe, batch))


@pytest.mark.parametrize("make", [grpo, dr_grpo, gspo, luspo, cispo, rloo])
def test_groups_without_signal_have_no_gradient(make: Any) -> None:
    recipe = make(kl_coef=0.0) if "kl_coef" in make.hyperparameters else make()
    batch = random_batch(dtype=torch.float32)
    flat = batch.replace(reward=torch.where(batch.group == 1, 0.1, batch.reward))
    rows = dlogp(recipe, flat).abs().sum(-1)
    assert (rows[batch.group == 1] == 0).all()
    assert (dlogp(recipe, on_policy(flat)).abs().sum(-1)[batch.group != 1] > 0).all()


def test_a_batch_keeps_its_padding_out_of_every_length() -> None:
    batch: Batch = random_batch(gaps=True)
    assert batch.length().tolist() == batch.mask.sum(-1).tolist()
    assert (batch.terminal().sum(-1) == 1).all()
    assert batch.replace(true_length=torch.arange(9)).length().tolist() == list(range(9))
