"""Facts of losses of pairs, as their papers state them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from policyopt.methods.preference.cpo import cpo
from policyopt.methods.preference.dpo import dpo
from policyopt.methods.preference.ipo import ipo
from policyopt.methods.preference.orpo import orpo
from policyopt.methods.preference.rdpo import rdpo
from policyopt.methods.preference.rpo import rpo
from policyopt.methods.preference.simpo import simpo
from policyopt.methods.preference.slic import slic
from policyopt.methods.preference.tpo_triple import tpo_triple
from policyopt.parts import Logistic
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.methods.preference.pairs import pairs, swapped, worked

BATCH = pairs([(4, 2), (1, 4), (3, 3)])


def same(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=tolerance, atol=tolerance)


def at_reference(batch: Batch) -> Batch:
    return batch.replace(ref_logp=batch.logp)


# DPO -----------------------------------------------------------------------------------------------------------------


def test_at_the_reference_every_pair_loses_log_2_and_pulls_by_half_of_beta() -> None:
    loss, gradient = worked(dpo(beta=0.3), at_reference(BATCH))
    assert loss == pytest.approx(math.log(2))
    same(gradient, (1 - 2 * BATCH.reward)[:, None] * 0.3 / (2 * 3) * BATCH.mask)


@pytest.mark.parametrize("divergence", ["forward-kl", "js", "alpha"])
def test_other_divergences_begin_where_dpo_does(divergence: Any) -> None:
    loss, gradient = worked(dpo(beta=0.3, divergence=divergence), at_reference(BATCH))
    factor = 0.5 if divergence == "js" else 1.0  # d f'(u) / d log u at u = 1
    assert loss == pytest.approx(math.log(2))
    same(gradient, factor * worked(dpo(beta=0.3), at_reference(BATCH))[1])


def test_a_small_alpha_is_the_reverse_kl() -> None:
    same(worked(dpo(divergence="alpha", alpha=1e-7), BATCH)[1], worked(dpo(), BATCH)[1], 1e-6)


def test_a_number_for_both_sides_changes_nothing() -> None:
    moved = BATCH.replace(ref_logp=BATCH.ref_logp - BATCH.terminal() * 7)
    for recipe in (dpo(), ipo(), rdpo(), rpo()):
        same(worked(recipe, moved)[1], worked(recipe, BATCH)[1])


@pytest.mark.parametrize("recipe", [cpo(), simpo(), orpo()], ids=lambda r: r.name)
def test_without_a_reference_none_is_read(recipe: Recipe) -> None:
    assert "reference" not in recipe.roles
    assert worked(recipe, BATCH.replace(ref_logp=None))[0] == worked(recipe, BATCH)[0]


# Labels that may be flipped --------------------------------------------------------------------------------------------


def test_the_mean_over_flips_of_the_robust_loss_is_the_clean_one() -> None:
    e = 0.2
    (right, up), (wrong, down) = (worked(rdpo(epsilon=e), b) for b in (BATCH, swapped(BATCH)))
    clean, gradient = worked(dpo(), BATCH)
    assert (1 - e) * right + e * wrong == pytest.approx(clean)
    same((1 - e) * up + e * down, gradient)


def test_smoothing_stops_and_the_robust_pull_does_not() -> None:
    z = torch.tensor([math.log(0.8 / 0.2), 40.0], dtype=torch.float64, requires_grad=True)
    (smooth,) = torch.autograd.grad(Logistic(smoothing=0.2).loss(z).sum(), z)
    (robust,) = torch.autograd.grad(Logistic(smoothing=0.2, debiased=True).loss(z).sum(), z)
    assert smooth[0].abs() < 1e-12 and smooth[1] > 0.19
    assert (robust <= -0.2 / 0.6 + 1e-12).all()


@pytest.mark.parametrize("e", [-0.1, 0.5, 0.7])
def test_half_of_the_labels_flipped_is_refused(e: float) -> None:
    with pytest.raises(ValueError, match="smoothing"):
        rdpo(epsilon=e)


# Targets, hinges, odds -------------------------------------------------------------------------------------------------


def test_ipo_rests_at_its_target_and_turns_beyond() -> None:
    one = pairs([(2, 2)])
    at = {gap: one.replace(ref_logp=one.logp - one.reward[:, None] * one.mask * gap / 2) for gap in (2.4, 2.5, 2.6)}
    loss, gradient = worked(ipo(tau=0.2), at[2.5])
    assert loss == pytest.approx(0, abs=1e-20) and gradient.abs().max() < 1e-10
    assert worked(ipo(tau=0.2), at[2.4])[1][0, 0] < 0 < worked(ipo(tau=0.2), at[2.6])[1][0, 0]


def test_a_text_repeated_has_the_same_mean_and_twice_the_sum() -> None:
    def twice(batch: Batch) -> Batch:
        return batch.replace(**{n: torch.cat([x, x], 1) for n, x in batch.columns().items() if x.dim() == 2})

    even = pairs([(3, 3), (3, 3)])
    for recipe in (simpo(), orpo(), ipo(mean=True)):
        assert worked(recipe, twice(even))[0] == pytest.approx(worked(recipe, even)[0]), recipe.name
    assert worked(ipo(), twice(even))[0] != pytest.approx(worked(ipo(), even)[0])


def test_simpo_asks_for_a_margin() -> None:
    flat = BATCH.replace(logp=torch.full_like(BATCH.logp, -0.7))
    assert worked(simpo(gamma=1.0), flat)[0] == pytest.approx(math.log1p(math.exp(1.0)))


def test_orpo_without_its_odds_is_fine_tuning_on_the_preferred() -> None:
    loss, gradient = worked(orpo(lam=0.0), BATCH)
    n = BATCH.mask.sum(-1)
    assert loss == pytest.approx(float(-((BATCH.logp * BATCH.mask).sum(-1) / n)[::2].mean()))
    same(gradient, -BATCH.reward[:, None] * BATCH.mask / (3 * n[:, None]))


def test_odds_stay_finite_for_a_certain_text() -> None:
    loss, gradient = worked(orpo(), BATCH.replace(logp=torch.zeros_like(BATCH.logp)))
    assert math.isfinite(loss) and gradient.isfinite().all()


def test_beyond_the_margin_slic_learns_its_target_alone() -> None:
    batch = pairs([(2, 2), (2, 2)], third=3)
    lift = torch.tensor([0.0, -9.0, 0.0, -9.0, 0.0, 0.0]).double()[
        :, None
    ]  # the first pair is far apart, the second not
    batch = batch.replace(logp=batch.logp.clamp(min=-0.1) + lift * batch.mask)
    gradient = worked(slic(margin=1.0, lam=0.1), batch)[1]
    assert not gradient[:2].any()
    same(gradient[2], -0.1 / 2 * batch.mask[2])
    same(gradient[3:5], torch.tensor([[-0.5], [0.5]]).double() * batch.mask[3:5])


def test_gold_the_preferred_text_tpo_is_cpo() -> None:
    batch = pairs([(3, 2), (2, 3)], third=3)
    as_gold = batch.replace(
        logp=torch.stack([batch.logp[i - 2 if i % 3 == 2 else i] for i in range(6)]),
        mask=torch.stack([batch.mask[i - 2 if i % 3 == 2 else i] for i in range(6)]),
    )
    loss, gradient = worked(tpo_triple(beta=0.3, alpha=0.9), as_gold)
    two = as_gold[torch.tensor([0, 1, 3, 4])]
    other, wanted = worked(cpo(beta=0.3, alpha=0.9), two)
    assert loss == pytest.approx(other)
    same(gradient[0] + gradient[2], wanted[0])


def test_the_sum_of_rpo_grows_with_the_text_and_its_mean_does_not() -> None:
    for sft, floor in (("sum", 0.2 * 0.1), ("mean", None)):
        gradient = worked(rpo(sft=sft), BATCH)[1] - worked(dpo(), BATCH)[1]  # type: ignore[arg-type]
        n = BATCH.mask.sum(-1, keepdim=True)
        pull = floor if floor is not None else 0.2 / n
        same(gradient, -BATCH.reward[:, None] * BATCH.mask * pull / 3)
