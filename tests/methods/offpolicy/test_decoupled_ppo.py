"""The page of decoupled-ppo."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.offpolicy.decoupled_ppo import InterpolatedRatio, decoupled_ppo
from policyopt.parts import TokenMean
from tests.batches import dlogp, random_batch


def test_however_old_the_rows_are_the_first_update_is_inside_the_clip() -> None:
    batch = random_batch(drift=2.0)
    batch = batch.replace(prox_logp=batch.logp)
    plain = grpo(None, None, kl_coef=0.0).replace(aggregate=TokenMean())
    torch.testing.assert_close(dlogp(decoupled_ppo(weight_high=None), batch), dlogp(plain, batch))
    held = dlogp(decoupled_ppo(mode="token_truncate", weight_high=1.2), batch)
    w = (batch.logp - batch.old_logp).exp()
    torch.testing.assert_close(held, dlogp(plain, batch) / w * w.clamp(max=1.2))


def test_fresh_rows_have_the_old_policy_as_the_proximal_one() -> None:
    batch = random_batch(drift=0.8)
    batch = batch.replace(lag=torch.zeros(9, dtype=torch.long))
    parent = grpo(kl_coef=0.0).replace(aggregate=TokenMean())
    torch.testing.assert_close(dlogp(decoupled_ppo(proximal="interpolated"), batch), dlogp(parent, batch))


def test_the_guess_lies_between_the_two_policies_and_its_halves_make_the_whole() -> None:
    batch = random_batch(drift=0.8).replace(lag=torch.arange(9))
    to, of = InterpolatedRatio(ahead=2)(batch), InterpolatedRatio(of="proximal", ahead=2)(batch)
    whole = batch.logp - batch.old_logp
    torch.testing.assert_close(to + of, whole)
    torch.testing.assert_close(of[4], whole[4] * 4 / 6)
    free = batch.logp.clone().requires_grad_()
    (slope,) = torch.autograd.grad(InterpolatedRatio(ahead=2)(batch.replace(logp=free)).sum(), free)
    assert bool((slope == 1).all()), "the guess has no gradient"


def test_a_response_that_two_policies_see_too_differently_is_rejected() -> None:
    batch = random_batch(drift=0.8)
    k2 = (((batch.prox_logp - batch.old_logp) * batch.mask) ** 2 / 2).sum(1) / batch.mask.sum(1)
    limit = float(k2.median()) * (1 + 1e-9)
    recipe = decoupled_ppo(weight_high=None, reject="k2", reject_above=limit)
    got, whole = dlogp(recipe, batch), dlogp(decoupled_ppo(weight_high=None), batch)
    torch.testing.assert_close(got, whole * (k2 <= limit)[:, None])
