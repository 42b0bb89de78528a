"""The page of r2vpo."""

from __future__ import annotations

import math

import pytest

from policyopt.methods.divergence.r2vpo import r2vpo
from policyopt.parts import Proximal, RatioTimesAdvantage, TokenMean, TokenRatio
from policyopt.steering import control
from tests.batches import dlogp, on_policy, random_batch
from tests.methods.shared_surrogates import PLAIN, same, slope, tokens


def test_r2vpo_without_multiplier_is_unclipped_and_on_policy_grpo() -> None:
    unclipped = PLAIN.replace(surrogate=RatioTimesAdvantage(), aggregate=TokenMean())
    same(dlogp(r2vpo(lam=0.0), random_batch()), dlogp(unclipped, random_batch()))
    batch = on_policy(random_batch())
    same(dlogp(r2vpo(lam=3.0), batch), dlogp(PLAIN.replace(aggregate=TokenMean()), batch))


def test_the_brake_of_r2vpo_turns_where_it_should() -> None:
    turn = math.log(1 + 1.0 / (2 * 0.5))
    before, at, after = slope(r2vpo(lam=0.5), tokens([turn - 0.1, turn, turn + 0.1])).tolist()
    assert before < 0 < after and abs(at) < 1e-12


def test_dual_ascent_rises_above_the_limit_and_rests_at_zero() -> None:
    recipe = r2vpo(lam=0.1, delta=0.5, dual_lr=2.0)
    values = []
    for v in (None, 0.7, 0.5, 0.3, 0.0, 0.0, 0.6):
        recipe = control(recipe, {} if v is None else {"proximal/chi2": v}, {})
        values.append(recipe.get("regularizers.Proximal.coef"))
    assert values == pytest.approx([0.1, 0.5, 0.5, 0.1, 0.0, 0.0, 0.2])
    batch = random_batch()
    measured = Proximal(deviation="chi2").metrics(batch)["proximal/chi2"]
    same(measured, (TokenRatio()(batch).exp() - 1) ** 2)
