"""The page of grpo-guard."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.grpo_guard import KL_FROM_OLD, CentredRatio, PositionWeight, centred, grpo_guard
from policyopt.parts import TokenRatio
from policyopt.rows import make_batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_ratios import same

# Centred ratios ------------------------------------------------------------------------------------------------------


def test_a_centred_log_ratio_has_the_mean_zero_under_the_old_policy() -> None:
    g = torch.Generator().manual_seed(1)
    old, new = torch.randn(2, 5, generator=g, dtype=torch.float64)
    table, logp = old.log_softmax(-1), new.log_softmax(-1)
    kl = KL_FROM_OLD(new.expand(5, 5), torch.arange(5), {"reference": old.expand(5, 5)})
    batch = make_batch(mask=torch.ones(5, 1), logp=logp[:, None], old_logp=table[:, None])
    batch = batch.with_statistics({KL_FROM_OLD.key: kl[:, None]})
    for scale in (1.0, 0.3):
        log_ratio = CentredRatio(scale=(scale,))(batch)[:, 0]
        same((table.exp() * log_ratio).sum(), torch.zeros((), dtype=torch.float64))
    same((table.exp() * (logp - table)).sum(), -kl[0])


def test_without_a_kl_grpo_guard_is_grpo_and_positions_have_scales_and_weights_of_their_own() -> None:
    still = {KL_FROM_OLD.key: torch.zeros(9, 6, dtype=torch.float64)}
    recipe, plain = grpo_guard(), grpo(kl_coef=0.0)
    batch = ready(recipe, random_batch()).with_statistics(still)
    same(gradients(recipe, batch)[1]["logp"], gradients(plain, batch)[1]["logp"])
    scaled = CentredRatio(scale=(0.5, 2.0))(batch)
    same(scaled, TokenRatio()(batch) * torch.tensor([0.5, 2, 2, 2, 2, 2], dtype=torch.float64))
    assert PositionWeight(weights=(3.0, 1.0))(scaled, batch)[0].tolist() == [3, 1, 1, 1, 1, 1]
    assert grpo_guard(step_weight=(3.0, 1.0)).weight == (PositionWeight(weights=(3.0, 1.0)),)
    assert recipe.weight == ()


def test_the_centred_ratio_of_a_gaussian_step_is_linear_in_its_mean() -> None:
    g = torch.Generator().manual_seed(2)
    old, move, noise = torch.randn(3, 4, 2, 3, generator=g, dtype=torch.float64)
    for std in (torch.tensor([0.4, 0.9], dtype=torch.float64), torch.tensor([0.8, 1.8], dtype=torch.float64)):
        sample = old + std[:, None] * noise

        def step(mean: Tensor, sample: Tensor = sample, std: Tensor = std) -> Tensor:
            log_ratio = ((sample - old) ** 2 - (sample - mean) ** 2).mean(-1) / (2 * std**2)
            return centred(log_ratio, ((mean - old) ** 2).mean(-1) / (2 * std**2), std)

        there, back = step(old + move), step(old - move)
        same(there, -back)
        same(there, (noise * move).mean(-1))
