"""The page of GDPO."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.judge.gdpo import gdpo
from tests.batches import random_batch, ready
from tests.methods.shared_judges import with_components


def test_what_a_sum_makes_equal_is_kept_apart() -> None:
    batch = random_batch(groups=(4,))
    right, form = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]
    batch = with_components(batch, right=right, form=form)
    batch = batch.replace(reward=torch.tensor(right).double() + torch.tensor(form).double())
    one, summed = (ready(method(kl_coef=0.0), batch).advantage[:, 0] for method in (gdpo, grpo))
    assert summed[0] == summed[1] and one[0] > one[1] + 0.2, "the rarer merit counts more"
    assert abs(float(one.mean())) < 1e-9 and abs(float(one.std()) - 1) < 1e-5


def test_the_scale_of_one_reward_changes_nothing_else() -> None:
    batch = random_batch(groups=(4, 3))
    x = torch.rand(2, 7, generator=torch.Generator().manual_seed(1)).double().tolist()
    first = with_components(batch, a=x[0], b=x[1])
    scaled = with_components(batch, a=x[0], b=[100 * v - 3 for v in x[1]])
    recipe = gdpo(eps=0.0)
    torch.testing.assert_close(ready(recipe, first).advantage, ready(recipe, scaled).advantage)
