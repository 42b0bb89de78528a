"""The page of online-dpo."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.games.online_dpo import online_dpo
from policyopt.objective import shaped
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import same


def test_two_responses_are_rloo_with_another_weight() -> None:
    pairs = random_batch(groups=(2, 2, 2))
    still = on_policy(pairs).replace(ref_logp=pairs.old_logp)  # at the reference: sigma(-z) is 1/2
    mine = dlogp(online_dpo(beta=0.3), still)
    gap = (pairs.reward.view(3, 2)[:, 0] - pairs.reward.view(3, 2)[:, 1]).abs().repeat_interleave(2)
    theirs = dlogp(rloo(kl_coef=0.0, group_size=2), still)
    same(mine / (0.3 * 0.5 / 3), theirs * 6 / gap[:, None])  # beta sigma(-z) over pairs, the gap over rows


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge"])
def test_equal_scores_are_no_pair_and_the_middle_has_no_gradient(loss: str) -> None:
    batch = random_batch(groups=(3, 2)).replace(reward=torch.tensor([0.4, 0.1, 0.9, 0.5, 0.5], dtype=torch.float64))
    found = dlogp(online_dpo(loss=loss, group_size=3), batch)
    assert not found[[0, 3, 4]].any()
    same(found[2].sum() / batch.mask[2].sum(), -found[1].sum() / batch.mask[1].sum())
    assert (found[2] * batch.mask[2]).sum() < 0


def test_a_missing_end_turns_the_pair() -> None:
    batch = random_batch(groups=(2,)).replace(
        reward=torch.tensor([0.9, 0.4], dtype=torch.float64), truncated=torch.tensor([1.0, 0.0], dtype=torch.float64)
    )
    plain, strict = online_dpo(), online_dpo(missing_eos_penalty=0.6)
    assert shaped(strict, batch).reward.tolist() == pytest.approx([0.3, 0.4])
    assert dlogp(plain, batch)[0].sum() < 0 < dlogp(strict, batch)[0].sum()
