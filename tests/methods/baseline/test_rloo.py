"""The page of rloo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.contrast.p3o import p3o
from policyopt.objective import shaped
from tests.batches import TinyPolicy, dlogp, on_policy, random_batch, ready
from tests.methods.shared_limits import alike
from tests.methods.shared_surrogates import same


def test_a_kl_in_the_reward_is_the_kl_of_the_policy_to_the_reference(tiny: TinyPolicy) -> None:
    logp, ref = tiny.log_probability(), tiny.logp(tiny.reference).sum(-1)
    value = (logp.exp() * (tiny.reward - 0.3 * (logp - ref))).sum()
    alike(tiny.expected_gradient(rloo(kl_coef=0.3), 2), -tiny.gradient(value))


def test_leave_one_out_sums_to_zero_and_for_two_is_their_difference() -> None:
    batch = random_batch(groups=(4, 2, 3))
    advantage = ready(rloo(), batch).advantage[:, 0]
    reward = shaped(rloo(), batch).total_reward()
    for g in range(3):
        assert abs(float(advantage[batch.group == g].sum())) < 1e-12
    alike(advantage[4:6], torch.stack([reward[4] - reward[5], reward[5] - reward[4]]))


def test_with_a_clip_rloo_weighs_whole_responses_by_their_ratio() -> None:
    recipe, plain = rloo(kl_coef=0.0, clip=0.2), rloo(kl_coef=0.0)
    fresh = on_policy(random_batch())
    alike(dlogp(recipe, fresh), dlogp(plain, fresh))
    stale = random_batch()
    stale = stale.replace(old_logp=torch.where(stale.group[:, None] == 0, stale.logp, stale.old_logp))
    advantage = ready(recipe, stale).advantage
    ratio = ((stale.logp - stale.old_logp) * stale.mask).sum(-1, keepdim=True).exp()
    silent = torch.where(advantage > 0, ratio > 1.2, ratio < 0.8)
    alike(dlogp(recipe, stale), torch.where(silent, 0.0, -advantage * ratio / len(stale)) * stale.mask)
    assert silent.any()
    assert not silent.all()


@pytest.mark.parametrize("variant", ["separate", "joint"])
def test_p3o_with_two_responses_is_rloo_on_policy(variant: Any) -> None:
    batch = on_policy(random_batch(groups=(2, 2, 2)))
    same(dlogp(p3o(variant, kl_coef=0.07), batch), dlogp(rloo(kl_coef=0.07, group_size=2), batch))
