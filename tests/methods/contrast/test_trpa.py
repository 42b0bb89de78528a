"""The page of trpa."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.contrast.trpa import trpa
from policyopt.objective import objective
from tests.batches import dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_surrogates import same, scores


def test_trpa_with_two_responses_is_dpo_with_mean_log_ratios() -> None:
    batch = random_batch(groups=(2,), lengths=(3, 5)).replace(
        correct=torch.tensor([0.0, 1.0]), formatted=torch.ones(2).double(), reward=torch.zeros(2).double()
    )
    recipe = trpa(beta=0.3, anisotropy=1.0, tr_kl_coef=0.0)
    l0, l1 = (s / n for s, n in zip(scores(batch), (3, 5), strict=True))
    loss, grads = gradients(recipe, ready(recipe, batch))
    assert float(loss) == pytest.approx(math.log1p(math.exp(-0.3 * (l1 - l0))))
    same(grads["logp"].sum(-1), torch.tensor([1.0, -1.0]).double() * grads["logp"].sum(-1)[0])
    assert float(grads["logp"][1, 0]) == pytest.approx(-0.3 / (1 + math.exp(0.3 * (l1 - l0))) / 5)


def test_trpa_knows_the_order_of_levels_alone() -> None:
    batch = random_batch().replace(correct=torch.tensor([1.0, 0, 0, 1, 1, 0, 0, 0, 0]).double())
    batch = batch.replace(formatted=torch.tensor([1.0, 1, 0, 1, 1, 0, 0, 1, 1]).double())
    relabelled = trpa().replace(shape=(trpa().set("shape.Correctness.right", 900.0).shape[0],))
    same(dlogp(trpa(), batch), dlogp(relabelled, batch))
    better, worse = trpa().get("surrogate").choose(ready(trpa(), batch))
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 2), (3, 1), (3, 2), (4, 5), (4, 6),
    ]  # fmt: skip
    still = on_policy(batch).replace(ref_logp=batch.old_logp)
    assert float(objective(trpa(), ready(trpa(), still))) == pytest.approx(math.log(2))
