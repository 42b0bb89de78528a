"""The page of ulorl."""

from __future__ import annotations

import torch

from policyopt import methods as po
from policyopt.methods.entropy.ulorl import Mastered
from tests.batches import dlogp, random_batch, ready
from tests.methods.shared_entropy import SEEDS

# UloRL ---------------------------------------------------------------------------------------------------------------


@SEEDS
def test_mastered_tokens_rest_and_stay_in_the_divisor(seed: int) -> None:
    recipe = po.ulorl(tau=0.2, entropy_target=1.4, importance="sais")
    batch = random_batch(seed)
    rest = recipe.get("weight.SelectedWeight.tokens")(ready(recipe, batch))
    assert rest.any()
    found, whole = dlogp(recipe, batch), dlogp(recipe.replace(weight=()), batch)
    assert torch.equal(found, torch.where(rest, 0.0, whole))
    mean = batch.sampled_entropy.mul(batch.mask).sum(-1) / batch.mask.sum(-1)
    rows = rest.any(-1)
    assert (batch.correct[rows] == 1).all()
    assert (mean[rows] < 1.4).all()
    assert (batch.logp[rest].exp() >= 0.2).all()
    assert not Mastered(tau=0.2, sigma=1.4)(ready(recipe, batch).replace(reward=torch.full((9,), 0.9))).any()
