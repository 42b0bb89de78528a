"""Soft gates, penalties, contrasts and off-policy methods: each in the limits where it is something known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.control import Schedule
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.clip.sapo_soft import SoftGate, sapo_soft
from policyopt.methods.contrast.copg import copg
from policyopt.methods.contrast.disco import HardNegatives, TrustRegion, disco
from policyopt.methods.contrast.p3o import p3o
from policyopt.methods.contrast.reg_grpo import AdvantageRegression, reg_grpo
from policyopt.methods.contrast.trpa import trpa
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.divergence.mdpo import mdpo
from policyopt.methods.divergence.r2vpo import DualAscent, r2vpo
from policyopt.methods.entropy.clip_cov import CovarianceBand, clip_cov
from policyopt.methods.entropy.kl_cov import TopCovariance, kl_cov
from policyopt.methods.group.grpo import grpo
from policyopt.methods.offpolicy.opmd_asymre import AdvantageWeight, opmd_asymre
from policyopt.methods.offpolicy.remix import remix
from policyopt.methods.offpolicy.vespo import GammaWeight, TrajectoryRatio, vespo
from policyopt.objective import objective
from policyopt.parts import (
    ClipMask,
    Logistic,
    Normalise,
    Pairs,
    Proximal,
    RatioTimesAdvantage,
    Regress,
    Reset,
    RowScore,
    SeqMeanTokenMean,
    TokenMean,
    TokenRatio,
)
from policyopt.parts.regularizer.proximal import deviation
from policyopt.parts.select.covariance import covariance
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.steering import control, scheduled
from tests.batches import dlogp, gradients, on_policy, random_batch, ready

PLAIN = grpo(kl_coef=0.0)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def tokens(log_ratio: list[float], advantage: float | list[float] = 1.0) -> Batch:
    """One row that is credited, with the given log-ratios."""
    x = torch.tensor([log_ratio], dtype=torch.float64)
    a = torch.full_like(x, advantage) if isinstance(advantage, float) else x.new_tensor([advantage])
    zero = torch.zeros_like(x)
    return make_batch(
        mask=torch.ones_like(x), group=torch.zeros(1), logp=x, old_logp=zero, ref_logp=zero, advantage=a,
        reward=torch.zeros(1).double(),
    )  # fmt: skip


def slope(recipe: Recipe, batch: Batch) -> Tensor:
    """dL/dlogp of a batch that is credited already, for one row times its number of tokens."""
    recipe = recipe.replace(aggregate=TokenMean(), critic=None, advantage=Normalise(centre="none", scale="none"))
    return (gradients(recipe, batch)[1]["logp"] * batch.mask.sum())[0]


# Gates ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.3, 1.0, 7.0])
def test_a_soft_gate_is_grpo_on_policy_whatever_tau(tau: float) -> None:
    batch = on_policy(random_batch())
    same(dlogp(sapo_soft(tau_pos=tau, tau_neg=2 * tau), batch), dlogp(PLAIN, batch))


def test_a_soft_gate_narrows_with_tau_and_never_closes() -> None:
    x = [-3.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0]
    weight = {tau: -slope(sapo_soft(tau_pos=tau), tokens(x)) for tau in (1e-6, 1.0, 3.0)}
    same(weight[1e-6], torch.tensor(x, dtype=torch.float64).exp(), 1e-9)
    moved = torch.tensor(x) != 0
    assert (weight[3.0] < weight[1.0])[moved].all() and (weight[3.0] > 0).all()
    r = torch.tensor(x, dtype=torch.float64).exp()
    same(weight[3.0], r / torch.cosh(1.5 * (r - 1)) ** 2)
    same(SoftGate(tau_pos=3.0).metrics(tokens(x).logp, tokens(x))["gate/weight"][0], weight[3.0])
    same(slope(sapo_soft(tau_neg=3.0), tokens(x, -1.0)), weight[3.0])
    assert slope(sapo_soft(), tokens([400.0, -400.0])).isfinite().all()


def test_vespo_is_reinforce_with_group_advantage_on_policy() -> None:
    parent = reinforce(baseline="none", group_size=8).replace(advantage=Normalise(), aggregate=TokenMean())
    batch = on_policy(random_batch())
    same(dlogp(vespo(), batch), dlogp(parent, batch))
    far = random_batch()
    whole = dlogp(vespo(k_pos=1.0, lambda_pos=0.0, k_neg=1.0, lambda_neg=0.0), far)
    w = ((far.logp - far.old_logp) * far.mask).sum(-1).exp()
    same(whole, dlogp(parent, far) * w[:, None])


def test_the_gamma_weight_peaks_at_k_over_lambda_and_falls_to_zero() -> None:
    part = GammaWeight()
    w = torch.linspace(0.01, 4, 400, dtype=torch.float64)
    for a, peak in ((1.0, 2 / 3), (0.0, 2 / 3), (-1.0, 3 / 2)):
        phi = part(w.log()[None], tokens([0.0] * 400, a))[0]
        assert abs(float(w[phi.argmax()]) - peak) < 0.01
        assert float(part(torch.zeros(1, 1), tokens([0.0], a))) == 1
        assert part(torch.tensor([[-300.0, 5.0, 300.0]]), tokens([0.0] * 3, a)).abs().max() < 1e-12


def test_the_trajectory_ratio_is_a_product_that_may_hold_the_mismatch_of_the_sampler() -> None:
    batch = random_batch(gaps=True)
    gap = (batch.old_logp - batch.rollout_logp).exp()
    for i in range(9):
        mine = batch.mask[i].bool()
        ratio = (batch.logp - batch.old_logp)[i][mine].exp().prod()
        same(TrajectoryRatio()(batch)[i].exp(), ratio.expand(6))
        same(
            TrajectoryRatio(mismatch_cap=1.01)(batch)[i].exp(), (ratio * gap[i][mine].clamp(max=1.01).prod()).expand(6)
        )
    assert TrajectoryRatio().needs == frozenset()
    assert TrajectoryRatio(mismatch_cap=2.0).needs == {"rollout_logp"}


# Penalties -----------------------------------------------------------------------------------------------------------


def test_deviations_estimate_what_they_say() -> None:
    g = torch.Generator().manual_seed(0)
    old, new = (torch.randn(5, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    p, d = old.exp(), new - old
    forward, reverse = (p * (old - new)).sum(), (new.exp() * (new - old)).sum()
    for kind, wanted in (("kl-old-new", forward), ("k3-old-new", forward), ("kl-new-old", reverse)):
        same((p * deviation(d, kind)).sum(), wanted)  # type: ignore[arg-type]
    same((new.exp() * deviation(d, "k3")).sum(), reverse)
    same((p * deviation(d, "chi2")).sum(), (new.exp() ** 2 / p).sum() - 1)
    for kind in ("chi2", "kl-new-old", "k3", "k2", "abs", "k3-old-new"):
        assert (deviation(d, kind) > 0).all()  # type: ignore[arg-type]
        assert float(deviation(torch.zeros(1), kind)) == 0  # type: ignore[arg-type]


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


def test_mdpo_is_the_policy_gradient_at_first_and_rests_at_the_mirror_step() -> None:
    parent = ppo(kl_coef=0.0, low=None, high=None)
    batch = on_policy(random_batch())
    for t in (0.1, 5.0):
        same(dlogp(mdpo(step_size=t), batch), dlogp(parent, batch))
    same(dlogp(mdpo(step_size=1e15), random_batch()), dlogp(parent, random_batch()))
    for t, a in ((0.7, 0.9), (0.4, -1.3)):
        below, at, above = slope(mdpo(step_size=t), tokens([t * a - 0.1, t * a, t * a + 0.1], a)).tolist()
        assert below < 0 < above and abs(at) < 1e-12


@pytest.mark.parametrize("total", [1, 7, 100])
def test_the_step_size_of_mdpo_falls_linearly_and_never_to_zero(total: int) -> None:
    recipe = mdpo(step_size=0.8, iterations=total)
    for k in range(total):
        assert 1 / scheduled(recipe, k).get("regularizers.Proximal.coef") == pytest.approx(0.8 * (1 - k / total))
    assert 1 / scheduled(recipe, 10 * total).get("regularizers.Proximal.coef") == pytest.approx(0.8 / total)


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


def test_clip_cov_mutes_no_more_than_its_quota_of_eligible_tokens() -> None:
    wide: dict[str, Any] = {"low": 0.2, "high": 0.2, "cov_low": 0.0, "cov_high": 50.0}
    batch = ready(clip_cov(), random_batch())
    parent = grpo(0.2, 0.2, kl_coef=0.0).replace(aggregate=TokenMean())
    plain = gradients(parent, batch)[1]["logp"]
    same(gradients(clip_cov(**wide, cov_ratio=0.0), batch)[1]["logp"], plain)
    muted = gradients(clip_cov(**wide, cov_ratio=0.1), batch)[1]["logp"]
    part: CovarianceBand = clip_cov(**wide, cov_ratio=0.1).get("weight.SelectedWeight.tokens")
    picked, eligible = part(batch), part.eligible(batch)
    assert int(picked.sum()) == int(0.1 * int(batch.mask.sum())) < int(eligible.sum())
    assert not (picked & ~eligible).any()
    assert (plain[eligible] != 0).all(), "what PPO clips is not eligible"
    same(muted, torch.where(picked, 0.0, plain))
    every = gradients(clip_cov(**wide, cov_ratio=1.0), batch)[1]["logp"]
    same(every, torch.where(eligible, 0.0, plain))
    flat = batch.replace(advantage=torch.full_like(batch.mask, 0.3))
    assert not part(flat).any()


def test_the_draw_follows_the_noise_alone_and_is_uniform() -> None:
    batch = ready(clip_cov(), random_batch(groups=(4, 4), lengths=(6,) * 8))
    part = CovarianceBand(fraction=0.1, above=-50.0, below=50.0, low=None, high=None)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(part(batch[order]), part(batch)[order])
    g = torch.Generator().manual_seed(1)
    draws = [part(batch.replace(noise=torch.rand(8, 6, generator=g).double())).double() for _ in range(600)]
    often = torch.stack(draws).mean(0)
    assert float(often.sum()) == pytest.approx(4)
    assert float(often.min()) > 0.04 and float(often.max()) < 0.13  # 1/12 each


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


def test_a_ring_adds_to_two_sides_what_the_update_pulls_back() -> None:
    ratio = torch.tensor([0.3, 0.4, 0.5, 0.8, 1.0, 1.2, 1.5, 2.9, 3.0, 3.5], dtype=torch.float64)

    def kept(sides: Any, a: float) -> list[int]:
        part = ClipMask(low=0.2, high=0.2, sides=sides, ring_low=0.6, ring_high=2.0)
        return part(ratio.log()[None], tokens([0.0] * 10, a))[0].int().tolist()

    for a in (1.0, -1.0, 0.0):
        assert kept("two", a) == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert kept("one", 1.0) == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert kept("one", -1.0) == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert kept("ring", 1.0) == [1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    assert kept("ring", -1.0) == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]


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


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential", "reciprocal"])
def test_a_schedule_in_stairs_takes_the_values_of_the_smooth_one_at_their_ends(shape: Any) -> None:
    smooth, stairs = (
        Schedule(field="x", start_value=2.0, end_value=0.5, steps=12, delay=3, shape=shape, stairs=n) for n in (None, 4)
    )
    for step in range(20):
        end = 3 + 3 * math.ceil(max(step - 3, 0) / 3)
        assert stairs.value(step) == pytest.approx(smooth.value(min(end, 15)))
    with pytest.raises(ValueError, match="needs start_value and end_value above 0"):
        Schedule(field="x", start_value=0.0, end_value=0.5, steps=12, shape="reciprocal")


# Contrasts -----------------------------------------------------------------------------------------------------------


def scores(batch: Batch) -> list[float]:
    return ((batch.logp - batch.ref_logp) * batch.mask).sum(-1).tolist()


def same_prompt(batch: Batch) -> list[tuple[int, int]]:
    group = batch.group.tolist()
    return [(i, j) for j in range(len(group)) for i in range(j) if group[i] == group[j]]


def test_all_pairs_one_by_one() -> None:
    batch = random_batch(groups=(4, 1, 3, 2), lengths=(3, 1, 4, 2, 5, 6, 2, 1, 4, 3))
    s, r, right = scores(batch), batch.reward.tolist(), batch.correct.tolist()
    total = 0.0
    for i, j in same_prompt(batch):
        total += -((r[i] - r[j]) - 0.2 * (s[i] - s[j])) * (s[i] - s[j])
    got = objective(copg(beta=0.4), ready(copg(), batch))
    assert float(got) == pytest.approx(total / len(same_prompt(batch)))

    n = batch.mask.sum(-1).tolist()
    losses = []
    for i, j in same_prompt(batch):
        i, j = (i, j) if r[i] > r[j] else (j, i)
        margin = 0.3 * (2.0 if right[i] else 1.0) * (s[i] / n[i] - s[j] / n[j])
        losses.append(math.log1p(math.exp(-margin)))
    recipe = trpa(beta=0.3, anisotropy=2.0, tr_kl_coef=0.0).replace(shape=())
    assert float(objective(recipe, ready(recipe, batch))) == pytest.approx(sum(losses) / len(losses))


def test_copg_two_forms_one_gradient_and_twice_rloo_at_the_reference() -> None:
    batch = random_batch()
    square = copg().set("surrogate.link.square", True)
    same(dlogp(copg(), batch), dlogp(square, batch))
    pairs = random_batch(groups=(2, 2, 2))
    still = on_policy(pairs).replace(ref_logp=pairs.old_logp)
    same(dlogp(copg(beta=0.7), still) / 2, dlogp(rloo(kl_coef=0.0, group_size=2), still))


def test_copg_rests_at_the_tilted_reference_whoever_sampled() -> None:
    batch = random_batch(lengths=(1,) * 9)
    tilt = batch.ref_logp + (batch.reward / 0.4 + batch.group * 1.7)[:, None]
    assert dlogp(copg(beta=0.4), batch.replace(logp=tilt)).abs().max() < 1e-12
    assert dlogp(copg(beta=0.5), batch.replace(logp=tilt)).abs().max() > 1e-2


@pytest.mark.parametrize("recipe", [copg(), trpa().replace(shape=()), p3o(), p3o("joint"), disco(), reg_grpo()],
                         ids=["copg", "trpa", "p3o", "p3o joint", "disco", "reg-grpo"])  # fmt: skip
def test_a_number_for_each_prompt_changes_no_contrast(recipe: Recipe) -> None:
    batch = random_batch()
    shifted = batch.replace(reward=batch.reward + torch.tensor([3.0, -1.0, 0.5]).double()[batch.group])
    same(dlogp(recipe, shifted), dlogp(recipe, batch), 1e-9)


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
    better, worse = trpa().get("surrogate").pairs(ready(trpa(), batch))
    assert sorted(zip(better.tolist(), worse.tolist(), strict=True)) == [
        (0, 1), (0, 2), (1, 2), (3, 1), (3, 2), (4, 5), (4, 6),
    ]  # fmt: skip
    still = on_policy(batch).replace(ref_logp=batch.old_logp)
    assert float(objective(trpa(), ready(trpa(), still))) == pytest.approx(math.log(2))


def test_without_a_pair_only_the_trust_region_is_left() -> None:
    batch = random_batch().replace(correct=torch.zeros(9).double(), formatted=torch.ones(9).double())
    got = dlogp(trpa(tr_kl_coef=0.5), batch)
    wanted = 0.5 * (1 - (batch.old_logp - batch.logp).exp()) * batch.mask / batch.mask.sum()
    same(got, wanted)
    assert not dlogp(copg(), batch.replace(reward=batch.correct, ref_logp=batch.logp)).any()


@pytest.mark.parametrize("variant", ["separate", "joint"])
def test_p3o_with_two_responses_is_rloo_on_policy(variant: Any) -> None:
    batch = on_policy(random_batch(groups=(2, 2, 2)))
    same(dlogp(p3o(variant, kl_coef=0.07), batch), dlogp(rloo(kl_coef=0.07, group_size=2), batch))


def pair(log1: float, log2: float) -> Batch:
    x = torch.tensor([[log1], [log2]], dtype=torch.float64)
    return make_batch(
        mask=torch.ones_like(x), group=torch.zeros(2), logp=x, old_logp=torch.zeros_like(x),
        ref_logp=torch.zeros_like(x), reward=torch.tensor([1.0, 0.2], dtype=torch.float64),
    )  # fmt: skip


def test_p3o_clips_one_side_or_both() -> None:
    up, down = dlogp(p3o("separate", kl_coef=0.0), pair(0.3, 0.0))[:, 0].tolist()
    assert up == 0 and down == pytest.approx(0.4 * math.exp(0.3))
    up, down = dlogp(p3o("separate", kl_coef=0.0), pair(0.0, -0.3))[:, 0].tolist()
    assert down == 0 and up == pytest.approx(-0.4 * math.exp(-0.3))
    assert not dlogp(p3o("joint", kl_coef=0.0), pair(0.3, 0.0)).any()
    assert dlogp(p3o("joint", kl_coef=0.0), pair(0.1, 0.0)).all()
    for variant in ("separate", "joint"):
        free = dlogp(p3o(variant, clip=None, kl_coef=0.0), pair(0.3, -0.4))[:, 0]  # type: ignore[arg-type]
        same(free, 0.4 * math.exp(-0.1) * torch.tensor([-1.0, 1.0]).double())


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


def test_reg_grpo_fits_the_direction_alone() -> None:
    recipe = reg_grpo(kl_coef=0.0)
    batch = random_batch(groups=(4, 3), lengths=(1,) * 7)
    old = batch.old_logp
    loss, got = gradients(recipe, ready(recipe, batch))
    moved = batch.replace(logp=old + 2.5 * (batch.logp - old) + 0.3)
    same(gradients(recipe, ready(recipe, moved))[0], loss, 1e-4)
    slopes, rho = got["logp"][:, 0], (batch.logp - old)[:, 0]
    expected = 0.0
    for g, size in ((0, 4), (1, 3)):
        rows = batch.group == g
        assert abs(float(slopes[rows].sum())) < 1e-12
        assert abs(float((slopes * rho)[rows].sum())) < 1e-4
        corr = torch.corrcoef(torch.stack([batch.reward[rows], rho[rows]]))[0, 1]
        expected += (size - 1) * 2 * (1 - float(corr)) / 7
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    best = batch.replace(logp=old + 0.7 * batch.reward[:, None])
    assert float(gradients(recipe, ready(recipe, best))[0]) < 1e-9


def test_the_first_step_of_reg_grpo_is_a_policy_gradient() -> None:
    recipe, batch = reg_grpo(kl_coef=0.0, floor=0.05), on_policy(random_batch())
    credit = ready(recipe, batch).advantage
    sums = PLAIN.replace(ratio=TrajectoryRatio(), surrogate=RatioTimesAdvantage())
    same(dlogp(recipe, batch), 2 / (0.05 + 1e-6) * dlogp(sums, batch), 1e-9)
    flat = batch.replace(reward=torch.ones(9).double())
    assert not dlogp(recipe, flat).any() and credit.any()


# Fields --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftGate(tau_pos=0.0),
        lambda: GammaWeight(k_neg=-1.0),
        lambda: Proximal(deviation="k4"),  # type: ignore[arg-type]
        lambda: TrustRegion(limit=-0.1),
        lambda: TopCovariance(fraction=1.5),
        lambda: CovarianceBand(above=math.inf),
        lambda: RowScore(reduce="max"),  # type: ignore[arg-type]
        lambda: Logistic(beta=0.0),
        lambda: Regress(beta=-1.0),
        lambda: Pairs(link=RowScore()),  # type: ignore[arg-type]
        lambda: HardNegatives(tau=0.0),
        lambda: AdvantageRegression(floor=0.0),
        lambda: ClipMask(sides="three"),  # type: ignore[arg-type]
        lambda: AdvantageWeight(temperature=0.0),
        lambda: TrajectoryRatio(mismatch_cap=0.0),
        lambda: DualAscent(lr=0.0),
        lambda: Reset(every=3, times=0),
    ],
)
def test_fields_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


def test_a_contrast_needs_two_responses_and_says_so() -> None:
    with pytest.raises(ValueError, match="needs at least 2"):
        copg(group_size=1)
    for wrong in ({"step_size": 0.0}, {"iterations": 0}):
        with pytest.raises(ValueError, match="must be above 0"):
            mdpo(**wrong)
    with pytest.raises(ValueError, match="works token by token"):
        remix().replace(ratio=TrajectoryRatio())
