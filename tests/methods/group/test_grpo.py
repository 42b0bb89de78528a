"""The page of grpo."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.group.grpo import StepNormalise, grpo
from policyopt.parts import Normalise
from policyopt.rows import make_batch
from tests.batches import dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_limits import alike

# PPO and GRPO --------------------------------------------------------------------------------------------------------


def test_grpo_before_the_first_update_is_its_two_terms() -> None:
    batch = on_policy(random_batch())
    recipe = grpo(kl_coef=0.04)
    advantage = ready(recipe, batch).advantage
    k1 = batch.logp - batch.ref_logp
    wanted = (-advantage + 0.04 * (1 - (-k1).exp())) * batch.mask / batch.mask.sum(-1, keepdim=True) / 9
    alike(dlogp(recipe, batch), wanted)
    alike(dlogp(recipe.set("surrogate.low", 0.0).set("surrogate.high", 0.0), batch), wanted)  # no clip before a step


def test_one_step_that_ends_with_the_response_is_outcome_supervision() -> None:
    batch = random_batch()
    last = batch.mask.sum(-1, keepdim=True).long() - 1
    steps = batch.replace(step_reward=batch.reward[:, None], step_end=last)
    alike(StepNormalise()(steps), Normalise()(batch))


@pytest.mark.parametrize(
    ("advantage", "ratio", "flat"), [(1, 1.5, True), (1, 0.5, False), (-1, 0.5, True), (-1, 9.0, False)]
)
def test_ppo_is_flat_exactly_beyond_the_bound_that_matters(advantage: float, ratio: float, flat: bool) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    batch = make_batch(mask=one, advantage=advantage * one, old_logp=-one, logp=math.log(ratio) - one)
    recipe = grpo(kl_coef=0.0)
    gradient = gradients(recipe, batch)[1]["logp"]
    alike(gradient, torch.zeros_like(one) if flat else -advantage * ratio * one)
