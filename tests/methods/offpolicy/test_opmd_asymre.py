"""The page of opmd-asymre."""

from __future__ import annotations

from typing import Any

import torch

from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.offpolicy.opmd_asymre import AdvantageWeight, opmd_asymre
from policyopt.parts import Normalise, SeqMeanTokenMean, TokenMean, TokenRatio
from policyopt.recipe import Recipe
from tests.batches import dlogp, gradients, on_policy, random_batch, ready
from tests.methods.shared_surrogates import PLAIN, same

# REC -----------------------------------------------------------------------------------------------------------------


def rec(**changes: Any) -> Recipe:
    return opmd_asymre(**{"clip_mode": "none", "weight": "none", "regularizer": "none"} | changes)


def test_a_one_side_mask_with_importance_weights_has_the_gradient_of_ppo() -> None:
    batch = random_batch()
    parent = PLAIN.replace(advantage=Normalise(scale="none"), aggregate=TokenMean())
    same(dlogp(rec(clip_mode="one-side", weight="is"), batch), dlogp(parent, batch))
    same(
        dlogp(rec(clip_mode="one-side", weight="is", std_normalize=True), batch),
        dlogp(parent.replace(advantage=Normalise()), batch),
    )


def test_without_mask_weight_and_regulariser_it_is_reinforce_with_the_mean_of_the_group() -> None:
    batch = random_batch()
    same(
        dlogp(rec(), batch), dlogp(reinforce(baseline="group-mean", group_size=8).replace(aggregate=TokenMean()), batch)
    )
    same(dlogp(rec(weight="advantage", temp=1e15), batch), dlogp(rec(), batch))
    same(dlogp(rec(weight="is"), on_policy(batch)), dlogp(rec(), batch))


def test_a_forward_kl_lowers_the_baseline() -> None:
    batch = ready(rec(), random_batch())
    lowered = gradients(rec(), batch.replace(advantage=(batch.advantage + 0.3) * batch.mask))
    got = gradients(rec(regularizer="forward-kl", reg_coef=0.3), batch)
    same(got[0], lowered[0])
    same(got[1]["logp"], lowered[1]["logp"])


def test_the_k2_term_acts_on_masked_tokens_too_and_not_on_policy() -> None:
    batch = random_batch()
    with_term, without = (dlogp(rec(clip_mode="two-side", low=0.0, high=0.0, **kind), batch)
                          for kind in ({"regularizer": "k2", "reg_coef": 0.2}, {}))  # fmt: skip
    assert not without.any()
    same(with_term, 2 * 0.2 * (batch.logp - batch.old_logp) * batch.mask / batch.mask.sum())
    same(dlogp(rec(regularizer="k2"), on_policy(batch)), dlogp(rec(), batch))


def test_with_a_sequence_weight_mask_and_weight_belong_to_the_response() -> None:
    batch = random_batch()
    recipe = rec(clip_mode="one-side", weight="sequence-is", low=0.05, high=0.05)
    got = dlogp(recipe, batch) / SeqMeanTokenMean()(batch).clamp(min=1e-9)
    credit = ready(recipe, batch).advantage
    for i in range(9):
        mine = batch.mask[i].bool()
        s, a = float((batch.logp - batch.old_logp)[i][mine].mean().exp()), float(credit[i, 0])
        silent = (a > 0 and s > 1.05) or (a < 0 and s < 0.95)
        same(got[i][mine], torch.full_like(got[i][mine], 0.0 if silent else -s * a))
    same(AdvantageWeight(temperature=2.0)(TokenRatio()(batch), ready(rec(), batch)), (credit / 2).exp())
