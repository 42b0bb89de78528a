"""The page of gppo-klear."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.clip.gppo_klear import GPPOClip, gppo_klear
from policyopt.methods.group.grpo import grpo
from policyopt.parts import PPOClip, TokenRatio
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_ratios import dlogp, same, token_gradient, tokens


@pytest.mark.parametrize("seed", range(3))
def test_gppo_has_the_value_of_ppo_and_a_gradient_everywhere(seed: int) -> None:
    batch = ready(grpo(), random_batch(seed=seed, drift=0.8))
    log_ratio = TokenRatio()(batch)
    preserving, plain = GPPOClip(low=0.2, high=0.28), PPOClip(low=0.2, high=0.28)
    same(preserving(log_ratio, batch), plain(log_ratio, batch))
    clipped = sum(plain.metrics(log_ratio, batch).values()) * batch.mask > 0
    assert clipped.any()
    recipe = gppo_klear(0.2, 0.28, sft_coef=0.0, dual_clip=None)
    got, wanted = (gradients(recipe.replace(surrogate=s), batch)[1]["logp"] for s in (preserving, plain))
    same(got[~clipped], wanted[~clipped])
    assert not wanted[clipped].any()
    bound = (0.8 + 0.48 * (batch.advantage > 0).double()) * batch.advantage.abs() / batch.mask.sum()
    same(got[clipped].abs(), bound[clipped])


def test_gppo_scales_what_is_clipped() -> None:
    batch = tokens([2.0, 0.5, 1.1, 0.5, 2.0], [1.0, -1.0, 1.0, 1.0, -1.0])
    part = GPPOClip(low=0.2, high=0.28, beta_low=0.5, beta_high=2.0)
    wanted = [-2.56, 0.4, -1.1, -0.5, 2.0]
    assert part(TokenRatio()(batch), batch)[0].tolist() == pytest.approx(wanted)
    assert token_gradient(part, batch) == pytest.approx(wanted)  # of c exp(log r) the slope is the value
    silent = GPPOClip(low=0.2, high=0.28, beta_low=0.0, beta_high=0.0, dual=1.5)
    assert token_gradient(silent, batch) == pytest.approx([0.0, 0.0, -1.1, -0.5, 0.0])


def test_right_answers_are_imitated_and_without_any_nothing_is() -> None:
    batch = random_batch(seed=2)
    with_term, without = gppo_klear(sft_coef=0.3), gppo_klear(sft_coef=0.0)
    right = batch.correct[:, None] * batch.mask
    pulled = dlogp(with_term, batch) - dlogp(without, batch)
    same(pulled, -0.3 * right / right.sum())
    none = batch.replace(correct=torch.zeros_like(batch.correct))
    same(dlogp(with_term, none), dlogp(without, none))
