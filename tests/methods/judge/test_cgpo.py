"""The page of cgpo."""

from __future__ import annotations

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.judge.cgpo import CalibratedAdvantage, cgpo, first_best
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_judges import same


def test_what_a_judge_forbids_earns_nothing_whatever_its_reward() -> None:
    batch = random_batch()
    part = CalibratedAdvantage(judges=("formatted",), kl_max=None)
    bad = batch.formatted < 0.5
    assert bad.any()
    assert (part.reward(batch.replace(reward=batch.reward + 100 * bad))[bad] == 0).all()
    shifted = batch.replace(reward=batch.reward + 3, baseline_reward=batch.baseline_reward + 3)
    same(part(shifted), part(batch))
    assert not part(batch.replace(formatted=batch.formatted * 0)).any()


def test_cgpo_without_constraints_is_reinforce_on_calibrated_rewards() -> None:
    batch = random_batch()
    free = cgpo(judges=(), kl_max=None, group_size=2)
    plain = batch.replace(reward=torch.sigmoid(batch.reward - batch.baseline_reward))
    same(dlogp(free, batch), dlogp(reinforce(baseline="batch-mean", group_size=2), plain))


def test_codpo_compares_the_best_allowed_response_with_the_worst_forbidden_one() -> None:
    reward = torch.tensor([1.0, 5.0, -2.0, 0.0, 3.0, 2.0, 9.0, 8.0])
    good = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    batch = random_batch(groups=(4, 2, 2)).replace(reward=reward.double(), formatted=good.double())
    recipe = cgpo(optimizer="codpo", judges=("formatted",), group_size=2)
    better, worse = recipe.surrogate.choose(ready(recipe, batch))
    assert better.tolist() == [0, 4]
    assert worse.tolist() == [3, 5], "all of the second prompt are allowed, none of the third"
    assert first_best(reward, batch.group, good > 2).tolist() == []
    gradient = dlogp(recipe, batch)
    assert gradient.abs().sum(-1).nonzero()[:, 0].tolist() == [0, 3, 4, 5]


def test_crraft_raises_one_response_for_each_prompt() -> None:
    batch = random_batch()
    gradient = dlogp(cgpo(optimizer="crraft", judges=("formatted",), kl_max=None, group_size=2), batch)
    rows = gradient.abs().sum(-1) > 0
    assert all(rows[batch.group == g].sum() == 1 for g in range(3) if batch.formatted[batch.group == g].any())
    assert (gradient <= 0).all()
