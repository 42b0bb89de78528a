"""The page of kl-cov."""

from __future__ import annotations

from policyopt.methods.entropy.kl_cov import TopCovariance, kl_cov
from policyopt.parts import RatioTimesAdvantage, TokenMean
from policyopt.parts.select.covariance import covariance
from tests.batches import gradients, on_policy, random_batch, ready
from tests.methods.shared_surrogates import PLAIN, same

# Covariance ----------------------------------------------------------------------------------------------------------


def test_kl_cov_changes_the_selected_tokens_alone_by_beta_towards_the_old_policy() -> None:
    batch = ready(kl_cov(), random_batch())
    unclipped = PLAIN.replace(surrogate=RatioTimesAdvantage(), aggregate=TokenMean())
    plain, held = (gradients(r, batch)[1]["logp"] for r in (unclipped, kl_cov(kl_frac=0.2, kl_coef=0.7)))
    n = int(batch.mask.sum())
    picked = TopCovariance(fraction=0.2)(batch)
    assert int(picked.sum()) == max(1, int(0.2 * n))
    assert covariance(batch)[picked].min() > covariance(batch)[batch.mask.bool() & ~picked].max()
    same(held - plain, 0.7 / n * (batch.logp - batch.old_logp).sign() * picked)
    same(gradients(kl_cov(kl_coef=0.0), batch)[1]["logp"], plain)
    still = on_policy(batch)
    same(gradients(kl_cov(kl_coef=9.0), still)[1]["logp"], gradients(unclipped, still)[1]["logp"])
    assert int(TopCovariance(fraction=1e-9)(batch).sum()) == 1
