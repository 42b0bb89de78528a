"""The page of opd."""

from __future__ import annotations

import torch

from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.distillation.opd import opd
from policyopt.methods.group.grpo import grpo
from policyopt.parts import TeacherAdvantage
from policyopt.rows import Batch
from tests.batches import dlogp, gradients, on_policy, random_batch, ready


def moved(seed: int = 0) -> Batch:
    return random_batch(seed, drift=0.5)


def test_it_is_the_sampled_form_of_gkd() -> None:
    batch = moved()
    for mine, theirs in zip(
        gradients(opd(kl_coef=0.7), ready(opd(kl_coef=0.7), batch)),
        gradients(r := gkd(form="sampled", kl_coef=0.7), ready(r, batch)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_loss_and_gradient_are_those_of_slime_token_by_token() -> None:
    """slime: GRPO's advantage - coef * (student - teacher), then PPO's clip; here over all tokens, in scalars."""
    batch, coef, low, high = moved(), 0.3, 0.2, 0.28
    recipe = opd(kl_coef=coef, rewards=True, low=low, high=high)
    credited = ready(recipe, batch)
    base, tokens, loss = grpo().advantage(credited), float(batch.mask.sum()), 0.0
    expected = torch.zeros_like(batch.mask)
    for i, t in batch.mask.nonzero().tolist():
        student, teacher = float(batch.old_logp[i, t]), float(batch.teacher_logp[i, t])
        advantage = float(base[i, t]) - coef * (student - teacher)
        ratio = float(torch.exp(batch.logp[i, t] - batch.old_logp[i, t]))
        bounded = min(max(ratio, 1 - low), 1 + high)
        loss += max(-ratio * advantage, -bounded * advantage) / tokens
        expected[i, t] = 0 if -bounded * advantage > -ratio * advantage else -ratio * advantage / tokens
    found, gradient = gradients(recipe, credited)
    torch.testing.assert_close(float(found), loss)
    torch.testing.assert_close(gradient["logp"], expected)


def test_on_policy_the_gradient_is_that_of_prime_rl() -> None:
    """prime-rl, ref_kl: -(ref - trainer).detach() * ratio, summed over the tokens of the step over their number."""
    batch = on_policy(moved())
    logp = batch.logp.clone().requires_grad_()
    gap = (batch.teacher_logp - logp).detach()
    loss = -(batch.mask * gap * (logp - batch.old_logp).exp()).sum() / batch.mask.sum()
    torch.testing.assert_close(dlogp(opd(), batch), torch.autograd.grad(loss, logp)[0])


def test_no_reward_is_read_and_a_teacher_who_agrees_teaches_nothing() -> None:
    batch = moved()
    torch.testing.assert_close(dlogp(opd(), batch), dlogp(opd(), batch.replace(reward=-3 * batch.reward)))
    agreed = batch.replace(teacher_logp=batch.old_logp)
    assert not dlogp(opd(), agreed).any()
    alone = grpo().advantage(agreed)
    torch.testing.assert_close(ready(opd(rewards=True), agreed).advantage, alone, rtol=0, atol=0)


def test_a_discount_makes_a_token_answer_for_later_ones_of_its_own() -> None:
    batch = moved().replace(reward=torch.full((9,), 5.0, dtype=torch.float64))
    gap = (batch.teacher_logp - batch.old_logp) * batch.mask
    found = TeacherAdvantage(gamma=0.9)(batch)
    for i in range(len(gap)):
        own = batch.mask[i].nonzero()[:, 0].tolist()
        for k, t in enumerate(own):
            later = sum(0.9**j * float(gap[i, u]) for j, u in enumerate(own[k:]))
            torch.testing.assert_close(float(found[i, t]), later)
    assert not found[batch.mask == 0].any()
