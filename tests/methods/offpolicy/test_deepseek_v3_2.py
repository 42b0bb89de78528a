"""The page of deepseek-v3.2."""

from __future__ import annotations

import torch

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.offpolicy.deepseek_v3_2 import deepseek_v3_2
from policyopt.parts import SeqMeanTokenMean
from tests.batches import TinyPolicy, dlogp, on_policy, random_batch, ready


def test_only_bad_responses_that_became_unlikely_are_silent() -> None:
    recipe = deepseek_v3_2(delta=0.05, kl_coef=0.0)
    batch = ready(recipe, random_batch(drift=0.8))
    drift = torch.where(batch.mask.bool(), batch.old_logp - batch.logp, 0.0).sum(1) / batch.mask.sum(1)
    gone = (batch.advantage.amin(1) < 0) & (drift > 0.05)
    far_and_good = (batch.advantage.amax(1) > 0) & (drift > 0.05)
    assert gone.any() and far_and_good.any()
    got = dlogp(recipe, random_batch(drift=0.8))
    whole = dlogp(deepseek_v3_2(delta=None, kl_coef=0.0), random_batch(drift=0.8))
    torch.testing.assert_close(got, whole * ~gone[:, None])


def test_on_policy_it_is_grpo_without_the_deviation() -> None:
    batch = on_policy(random_batch())
    parent = dr_grpo().replace(aggregate=SeqMeanTokenMean())
    torch.testing.assert_close(dlogp(deepseek_v3_2(kl_coef=0.0), batch), dlogp(parent, batch))


def test_the_kl_has_the_gradient_of_the_kl_to_the_reference() -> None:
    """Of the tokens after a first one, whose shares do not depend on what they are, over all responses that can be drawn."""
    tiny = TinyPolicy(3)
    recipe = deepseek_v3_2(kl_coef=1.0).replace(surrogate=None, advantage=None, weight=())
    ours, other = tiny.theta.log_softmax(-1), tiny.reference.log_softmax(-1)
    kl = (ours.exp() * (ours - other)).sum(-1)
    met = ours[0].detach().exp()
    wanted = tiny.gradient((met * kl)[1:].sum() / 2)  # each of two tokens counts half
    torch.testing.assert_close(tiny.expected_gradient(recipe, 1)[1:], wanted[1:])
