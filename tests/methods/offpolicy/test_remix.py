"""The page of remix."""

from __future__ import annotations

import math

import pytest

from policyopt.methods.group.grpo import grpo
from policyopt.methods.offpolicy.remix import remix
from policyopt.parts import RatioTimesAdvantage, Reset, TokenMean
from tests.batches import dlogp, on_policy, random_batch
from tests.cases.words._scheduled import scheduled
from tests.methods.shared_surrogates import same

# ReMix ---------------------------------------------------------------------------------------------------------------


def test_remix_on_fresh_rows_is_grpo_with_a_token_mean() -> None:
    batch = random_batch()
    fresh = batch.replace(prox_logp=batch.old_logp)
    for batch in (fresh, on_policy(fresh)):
        same(dlogp(remix(), batch), dlogp(grpo(kl_coef=0.01).replace(aggregate=TokenMean()), batch))


def test_where_the_step_starts_no_token_is_clipped_however_old_it_is() -> None:
    batch = random_batch(drift=2.0)
    start = batch.replace(logp=batch.prox_logp)
    unclipped = remix(kl_coef=0.0).replace(surrogate=RatioTimesAdvantage())
    same(dlogp(remix(kl_coef=0.0), start), dlogp(unclipped, start))
    assert (dlogp(remix(kl_coef=0.0), batch) == 0).sum() > (dlogp(unclipped, batch) == 0).sum()


def test_the_share_of_the_reference_falls_in_stairs() -> None:
    recipe = remix(kl_coef=0.3)
    for step in range(200):
        lam = max(1 - 0.1 * math.ceil(max(step - 50, 0) / 10), 0.5)
        now = scheduled(recipe, step)
        assert now.get("regularizers.reference.coef") == pytest.approx(0.3 * lam)
        assert now.get("regularizers.previous.coef") == pytest.approx(0.3 * (1 - lam))


def test_reincarnation_ends_replay_and_resets_the_reference_once() -> None:
    recipe = remix(switch=30, window=3, epochs=2)
    for step, replay, epochs in ((0, 3, 2), (29, 3, 2), (30, 0, 1), (31, 0, 1), (300, 0, 1)):
        now = scheduled(recipe, step)
        assert (now.update.replay, now.update.epochs) == (replay, epochs)
    assert [step for step in range(1, 200) if recipe.reference(step)] == [30]
    assert [step for step in range(1, 100) if Reset(every=30)(step)] == [30, 60, 90]
