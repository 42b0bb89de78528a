"""The page of ppo."""

from __future__ import annotations

from policyopt.methods.critic.ppo import ppo
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_limits import alike


def test_ppo_has_one_more_term_for_the_critic_and_one_for_entropy() -> None:
    batch = random_batch()
    recipe = ppo(vf_coef=0.5, entropy_coef=0.02)
    loss, got = gradients(recipe, ready(recipe, batch))
    tokens = batch.mask.sum()
    alike(got["entropy"], -0.02 * batch.mask / tokens)
    inside = ((batch.value - batch.old_value).abs() < 0.2) & batch.mask.bool()
    error = batch.value - ready(recipe, batch).returns
    alike(got["value"][inside], (0.5 * error / tokens)[inside])
    bootstrapped = ppo(gamma=0.9, lam=0.5)
    assert (bootstrapped.critic.gamma, bootstrapped.critic.lam) == (0.9, 0.5)  # type: ignore[union-attr]
    policy = ppo(vf_coef=0.0)
    alike(got["logp"], gradients(policy, ready(policy, batch))[1]["logp"])
    assert loss.isfinite()
