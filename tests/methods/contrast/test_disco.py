"""The page of disco."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policyopt.methods.contrast.disco import TrustRegion, disco
from policyopt.objective import objective
from policyopt.parts import Proximal, RowScore
from policyopt.parts.pairing.pairs import row_credit
from tests.batches import dlogp, gradients, random_batch, ready
from tests.methods.shared_surrogates import PLAIN, same


def test_a_trust_region_is_silent_inside_and_grows_linearly_outside() -> None:
    batch = random_batch().replace(advantage=torch.zeros(9, 6).double())
    d = float(TrustRegion().measured(batch))
    assert d == pytest.approx(float(((batch.old_logp - batch.logp) * batch.mask).sum() / batch.mask.sum()))

    def pull(limit: float) -> Tensor:
        part = TrustRegion(coef=10.0, limit=limit)
        return gradients(PLAIN.replace(regularizers=(part,)), batch)[1]["logp"]

    low, flat = min(d, 0.0) - 1.0, pull(max(d, 0) + 0.1)
    assert not flat.any()
    assert low < d
    share = batch.mask / batch.mask.sum()
    limit = max(0.0, d / 2)
    same(pull(limit), -10 * max(d - limit, 0.0) * share)
    mean = Proximal(coef=10.0, deviation="kl-old-new", mean=True)
    same(gradients(PLAIN.replace(regularizers=(mean,)), batch)[1]["logp"], -10 * share)
    assert mean.unit == "batch" and Proximal().unit == "token"


def test_disco_one_by_one() -> None:
    batch = random_batch(groups=(4, 3, 2, 1), lengths=(3, 1, 4, 2, 5, 6, 2, 1, 4, 3)).replace(
        reward=torch.tensor([1.0, 0, 1, 0, 0, 1, 0, 1, 1, 1]).double()
    )
    s = [float(x[m.bool()].mean()) for x, m in zip(batch.logp, batch.mask, strict=True)]
    total = sum(
        sum(s[i] - 0.3 * math.log(sum(math.exp(s[j] / 0.3) for j in bad) / len(bad)) for i in good) / len(good)
        for good, bad in (([0, 2], [1, 3]), ([5], [4, 6]))
    )
    recipe = disco(tau=0.3).replace(regularizers=())
    assert float(objective(recipe, ready(recipe, batch))) == pytest.approx(-total / 4)


def test_disco_between_the_mean_and_the_hardest_negative() -> None:
    batch = random_batch()

    def at(tau: float | None) -> Tensor:
        return dlogp(disco(tau=tau).replace(regularizers=()), batch)

    same(at(1e7), at(None), 1e-6)
    hard = at(1e-6)
    credit, score = row_credit(ready(disco(), batch)), RowScore(reduce="mean")(batch)
    for g in range(3):
        rows = [i for i in range(9) if batch.group[i] == g]
        bad = [i for i in rows if credit[i] < 0]
        hardest = max(bad, key=lambda i: float(score[i]))
        assert [i for i in bad if hard[i].any()] == [hardest]
        for tau in (None, 0.5, 1e-6):
            assert abs(float(at(tau)[rows].sum())) < 1e-12
            good = sum(float(at(tau)[i].sum()) for i in rows if credit[i] > 0)
            assert good == pytest.approx(-1 / 3), "each prompt has the same weight"
    alike = batch.replace(reward=torch.ones(9).double())
    assert not dlogp(disco().replace(regularizers=()), alike).any()
