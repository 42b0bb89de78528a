"""The page of otr."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.distillation.otr import OneToken, otr, token_key, uniforms
from policyopt.parts import TokenMean
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_divergence import distributions

# OTR -------------------------------------------------------------------------------------------------------------------


def test_one_token_rollouts_without_punishment_are_weighted_fine_tuning() -> None:
    part, logits, target = OneToken(samples=50, wrong=0.0), distributions(4, 6), torch.tensor([0, 3, 5, 5])
    leaf = logits.clone().requires_grad_()
    found = torch.autograd.grad(part(leaf, target, {}).sum(), leaf)[0]
    supervised = torch.autograd.grad(-leaf.log_softmax(-1).gather(-1, target[:, None]).sum(), leaf)[0]
    hits = part.frequency(logits, target).gather(-1, target[:, None])
    torch.testing.assert_close(found, hits * supervised)
    torch.testing.assert_close(50 * hits, (50 * hits).round())


def test_the_expectation_at_temperature_one_is_dynamic_fine_tuning() -> None:
    part, logits, target = OneToken(samples=None, kappa=1.0, wrong=0.0), distributions(4, 6), torch.arange(4)
    chosen = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    torch.testing.assert_close(part(logits, target, {}), -chosen.exp() * chosen)


def test_draws_tend_to_the_expectation_and_are_made_at_kappa() -> None:
    logits, target = distributions(3, 6), torch.arange(3)
    many, exact = (OneToken(samples=n, kappa=2.0).frequency(logits, target) for n in (40_000, None))
    torch.testing.assert_close(exact, (logits / 2).softmax(-1))
    torch.testing.assert_close(many, exact, rtol=0, atol=0.01)
    torch.testing.assert_close(many.sum(-1), torch.ones(3, dtype=torch.float64))


def test_a_full_reward_for_every_token_ignores_the_label() -> None:
    logits = distributions(2, 6)
    losses = [OneToken(samples=None, wrong=1.0)(logits, torch.full((2,), t), {}) for t in (0, 4)]
    torch.testing.assert_close(*losses)


def test_a_label_without_a_hit_rises_against_the_tokens_that_were_drawn() -> None:
    part, logits, target = OneToken(wrong=-0.1), torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0])
    leaf = logits.requires_grad_()
    loss = part.loss(leaf, target, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    down = -torch.autograd.grad(loss.sum(), leaf)[0][0]
    assert down[0] > 0 > down[1]


def test_draws_depend_on_the_token_and_not_on_its_company_or_float_noise() -> None:
    logits, target = distributions(64, 6), torch.arange(64) % 6
    part = OneToken(samples=16)
    whole, order = part.frequency(logits, target), torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], part.frequency(logits[order], target[order]))
    assert torch.equal(whole, part.frequency(logits + 1e-12, target))
    keys = token_key(logits, target).unique()
    u = uniforms(keys, 2000)
    assert len(keys) > 60
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(torch.corrcoef(u).fill_diagonal_(0).abs().max()) < 0.15


def test_otr_has_no_loss_but_its_own() -> None:
    recipe, batch = otr(), random_batch()
    loss, found = gradients(recipe, ready(recipe, batch))
    key = recipe.live[0].key
    assert float(loss) == pytest.approx(
        float((TokenMean()(batch) * ready(recipe, batch).members("statistic")[key]).sum())
    )
    assert not found["logp"].any()
