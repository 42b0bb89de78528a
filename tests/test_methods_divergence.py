"""Divergences to a target, distillation, and the methods that come with a measurement."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.control import Schedule
from policyopt.data import load_task
from policyopt.engine.local import LocalSampler
from policyopt.errors import UserError
from policyopt.judging.judges import make_judge
from policyopt.methods.analysis.alignment_asymptotics import (
    BestOf,
    alignment_asymptotics,
    best_of,
    best_of_kl,
    expected_best,
    kl,
    strength_at,
)
from policyopt.methods.analysis.policy_cliff import RewardCliff, policy_cliff, soft_policy, stability_bound
from policyopt.methods.analysis.rl_subnetworks import UpdateSparsity, overlap, rl_subnetworks, sparsity, updated
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.distillation.aligndistil import ExtrapolatedKL, aligndistil
from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.distillation.kdrl import ROWS, Unsolved, kdrl
from policyopt.methods.distillation.otr import OneToken, otr, token_key, uniforms
from policyopt.methods.divergence.grpo_d import grpo_d
from policyopt.methods.divergence.orpo_chi2 import (
    OccupancyPenalty,
    SequenceDivergence,
    occupancy_distance,
    orpo_chi2,
    tamed_expm1,
    trimmed_mean,
)
from policyopt.methods.divergence.rl_as_bayes import (
    PosteriorGap,
    PosteriorWeight,
    log_evidence,
    regularised_value,
    rl_as_bayes,
)
from policyopt.methods.group.grpo import grpo
from policyopt.models.causal import split_model
from policyopt.models.embedded import random_tiny
from policyopt.objective import objective
from policyopt.parts import RatioTimesAdvantage, TokenMean
from policyopt.parts.probe.tilt import optimal_set, tilt
from policyopt.parts.regularizer.kl import KL, kl_estimate
from policyopt.parts.statistic.jsd import JSD
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.sources.draw import Demonstrated
from policyopt.sources.program import Response
from policyopt.steering import scheduled
from tests.asking import ask
from tests.batches import gradients, on_policy, random_batch, ready


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Loss and gradient of two recipes agree on a batch as it was drawn."""
    for x, y in zip(*(gradients(r, ready(r, batch)) for r in (a, b)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def binary(seed: int = 0) -> Batch:
    batch = random_batch(seed, gaps=True)
    return batch.replace(reward=batch.correct)


def distributions(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


# GRPO-D ----------------------------------------------------------------------------------------------------------------


def test_grpo_d_with_a_level_ramp_is_grpo() -> None:
    level = grpo_d(kl_start=0.03, kl_end=0.03, format_coef=0.0)
    same(level, grpo(kl_coef=0.03), binary())
    same(scheduled(level, 77), grpo(kl_coef=0.03), binary())


def test_grpo_d_starts_without_a_reference_and_ends_with_all_of_it() -> None:
    recipe, batch = grpo_d(kl_steps=10), binary()
    far = batch.replace(ref_logp=batch.ref_logp - 3)
    same(scheduled(recipe, 0), grpo(kl_coef=0.0), batch.replace(reward=batch.correct + batch.formatted))
    first, other = (objective(scheduled(recipe, 0), ready(recipe, b)) for b in (batch, far))
    assert float(first) == float(other)
    values = [float(scheduled(recipe, s).get("regularizers.KL.coef")) for s in range(14)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[10:] == [0.04] * 4
    assert values[3] == pytest.approx(0.012)
    wave = [grpo_d(kl_steps=10, schedule="cosine").controllers[0].value(s) for s in (2, 5)]  # type: ignore[attr-defined]
    assert wave == pytest.approx([0.02 * (1 - math.cos(0.2 * math.pi)), 0.02])


def test_grpo_d_adds_the_gradient_of_its_kl_alone() -> None:
    recipe, batch = grpo_d(kl_steps=10, format_coef=0.0), binary()
    plain = gradients(grpo(kl_coef=0.0), ready(grpo(kl_coef=0.0), batch))[1]["logp"]
    half = gradients(scheduled(recipe, 5), ready(recipe, batch))[1]["logp"]
    full = gradients(scheduled(recipe, 10), ready(recipe, batch))[1]["logp"]
    torch.testing.assert_close(full - plain, 2 * (half - plain))


# KDRL ------------------------------------------------------------------------------------------------------------------


def test_kdrl_without_its_teacher_is_grpo_over_tokens_without_a_clip() -> None:
    parent = grpo(None, None, kl_coef=0.0).replace(aggregate=TokenMean(), surrogate=RatioTimesAdvantage())
    same(kdrl(kl_coef=0.0, kl_min=0.0), parent, binary())


def test_kdrl_without_signal_is_distillation() -> None:
    batch = binary().replace(reward=torch.ones(9, dtype=torch.float64))
    loss, found = gradients(kdrl(kl_coef=0.2), ready(kdrl(), batch))
    share = batch.mask / batch.mask.sum()
    torch.testing.assert_close(found["logp"], 0.2 * share * (batch.logp - batch.teacher_logp))
    assert float(loss) == pytest.approx(0.1 * float((share * (batch.logp - batch.teacher_logp) ** 2).sum()))


@pytest.mark.parametrize("kl", ["k2", "k3"])
def test_a_teacher_that_is_the_student_says_nothing(kl: Any) -> None:
    batch = binary()
    same(kdrl(kl_coef=0.2, kl=kl), kdrl(kl_coef=0.0, kl_min=0.0), batch.replace(teacher_logp=batch.logp))


def test_k2_and_k3_agree_to_first_order() -> None:
    logp, ref = torch.zeros(3, requires_grad=True), torch.tensor([1e-4, -2e-4, 0.3])
    slopes = [torch.autograd.grad(kl_estimate(logp, ref, kind).sum(), logp)[0] for kind in ("k2", "k3")]
    torch.testing.assert_close(slopes[0], -ref)
    torch.testing.assert_close(slopes[1], 1 - ref.exp())
    torch.testing.assert_close(slopes[0][:2], slopes[1][:2], rtol=2e-4, atol=0)


def test_the_rows_that_the_teacher_speaks_to() -> None:
    batch = binary().replace(correct=torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.float64))
    picked = {rows: KL(target="teacher", rows=r).picked(batch).tolist() for rows, r in ROWS.items()}
    assert picked["all"] == [1.0] * 9
    assert picked["wrong"] == [0.0, 1, 1, 0, 1, 1, 1, 1, 0]
    assert picked["unsolved"] == [0.0, 0, 0, 0, 1, 1, 1, 0, 0]
    for rows, keep in picked.items():
        both = [gradients(r, ready(r, batch))[1]["logp"] for r in (kdrl(rows=rows), kdrl(kl_coef=0.0, kl_min=0.0))]
        moved = (both[0] - both[1]).abs().sum(1) > 0
        assert moved.tolist() == [bool(k) for k in keep]
    assert KL(rows=Unsolved()).unit == "group"
    assert KL(target="teacher").needs == {"teacher_logp"}
    with pytest.raises(UserError, match="rows is 'some', but the teacher speaks to one of all, wrong, unsolved"):
        kdrl(rows="some")  # type: ignore[arg-type]


def test_a_teacher_raises_tokens_of_wrong_answers_too() -> None:
    batch = on_policy(binary())
    batch = batch.replace(teacher_logp=batch.old_logp + 2)
    found = gradients(kdrl(kl_coef=5.0), ready(kdrl(), batch))[1]["logp"]
    assert (found[batch.mask.bool()] < 0).all()


def test_the_weight_of_the_teacher_falls_to_its_floor() -> None:
    recipe = kdrl(kl_coef=0.05, kl_min=0.012, kl_decay=0.004)
    values = [scheduled(recipe, s).get("regularizers.KL.coef") for s in (0, 1, 9, 10, 500)]
    assert values == pytest.approx([0.05, 0.046, 0.014, 0.012, 0.012])
    assert not kdrl(kl_decay=0.0).controllers
    assert kdrl(kl_coef=1e-4, kl_min=1e-3).get("regularizers.KL.coef") == 1e-3


# GKD -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_divergence_is_zero_where_the_two_agree_and_its_gradient_sums_to_zero(beta: float) -> None:
    q, p = distributions(5, 7), distributions(5, 7, seed=1)
    target = torch.zeros(5, dtype=torch.long)
    part = JSD(beta=beta)
    torch.testing.assert_close(part(q, target, {"teacher": q + 3}), torch.zeros(5, dtype=torch.float64))
    leaf = q.clone().requires_grad_()
    found = part(leaf, target, {"teacher": p})
    assert (found > 0).all()
    slope = torch.autograd.grad(found.sum(), leaf)[0]
    assert slope.abs().max() > 0.01
    torch.testing.assert_close(slope.sum(-1), torch.zeros(5, dtype=torch.float64))


def test_the_divergence_of_the_middle_is_symmetric_and_bounded_and_the_ends_are_limits() -> None:
    q, p, target = 8 * distributions(5, 7), 8 * distributions(5, 7, seed=1), torch.zeros(5, dtype=torch.long)
    middle = JSD()
    torch.testing.assert_close(middle(q, target, {"teacher": p}), middle(p, target, {"teacher": q}))
    assert (middle(q, target, {"teacher": p}) <= math.log(2)).all()
    for end, beta in ((0.0, 1e-9), (1.0, 1 - 1e-9)):
        near = JSD(beta=beta)(q / 8, target, {"teacher": p / 8}) / min(beta, 1 - beta)
        torch.testing.assert_close(near, JSD(beta=end)(q / 8, target, {"teacher": p / 8}), rtol=1e-5, atol=1e-6)


def test_forward_and_reverse_are_the_two_ways_round() -> None:
    q, p = (torch.tensor([x], dtype=torch.float64).log() for x in ([0.9, 0.1], [0.5, 0.5]))
    target = torch.zeros(1, dtype=torch.long)
    forward, reverse = (float(JSD(beta=b)(q, target, {"teacher": p})) for b in (0.0, 1.0))
    assert forward == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert reverse == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))
    assert JSD(target="reference").roles == {"reference"}


def test_sampled_distillation_follows_the_reverse_kl_in_expectation() -> None:
    recipe, logits, teacher = gkd(form="sampled"), distributions(6).requires_grad_(), distributions(6, seed=1)
    logp, other = logits.log_softmax(-1), teacher.log_softmax(-1)
    whole = torch.autograd.grad((logp.exp() * (logp - other)).sum(), logits, retain_graph=True)[0]
    total = torch.zeros(6, dtype=torch.float64)
    for token in range(6):
        row = make_batch(
            mask=torch.ones(1, 1, dtype=torch.float64),
            group=torch.zeros(1),
            reward=torch.ones(1, dtype=torch.float64),
            correct=torch.ones(1, dtype=torch.float64),
            old_logp=logp[token].detach().view(1, 1),
            teacher_logp=other[token].view(1, 1),
            logp=logp[token].view(1, 1),
        )
        loss = objective(recipe, ready(recipe, row).replace(logp=logp[token].view(1, 1)))
        total += logp[token].exp().detach() * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, whole)


def test_gkd_reads_neither_rewards_nor_ratios() -> None:
    recipe, batch = gkd(), random_batch()
    loss, found = gradients(recipe, ready(recipe, batch))
    changed = batch.replace(reward=-batch.reward, old_logp=batch.old_logp - 1)
    stat = ready(recipe, batch).members("statistic")
    again, other = gradients(recipe, ready(recipe, changed).with_statistics(stat))
    assert float(loss) == float(again)
    assert not found["logp"].any()
    torch.testing.assert_close(found[recipe.live[0].key], recipe.aggregate(batch))
    assert other.keys() == found.keys()


# AlignDistil -------------------------------------------------------------------------------------------------------------


def roles(seed: int = 0) -> dict[str, Tensor]:
    return {"teacher": distributions(4, 6, seed=seed), "reference": distributions(4, 6, seed=seed + 1)}


def test_where_the_models_agree_the_target_is_the_teacher() -> None:
    part, others = ExtrapolatedKL(), roles()
    others["reference"] = others["teacher"] + 1
    torch.testing.assert_close(part.weight(others), torch.full((4,), 1e-3, dtype=torch.float64))
    torch.testing.assert_close(part.extrapolated(others), others["teacher"].log_softmax(-1))


@pytest.mark.parametrize(("ratio", "end"), [(1.0, "teacher"), (1e-9, "reference")])
def test_the_first_theorem_at_its_ends(ratio: float, end: str) -> None:
    part, others = ExtrapolatedKL(alpha=0.0, floor=ratio, base="reference"), roles()
    torch.testing.assert_close(part.extrapolated(others), others[end].log_softmax(-1))


def test_the_first_theorem_is_the_optimum_of_the_implied_reward() -> None:
    """softmax(z*) maximises E[b1 log(pi_T / pi_ref)] - b2 KL(pi || pi_ref)."""
    b1, b2 = 0.3, 0.2
    logits = {name: x[:1] for name, x in roles().items()}
    best = ExtrapolatedKL(alpha=0.0, floor=b1 / b2, base="reference").extrapolated(logits)[0]
    plus, base = (logits[name].log_softmax(-1)[0] for name in ("teacher", "reference"))
    reward = b1 * (plus - base)
    torch.testing.assert_close(best.exp(), tilt(base.exp(), reward, 1 / b2))


def test_the_gradient_vanishes_at_the_target_alone_and_constants_change_nothing() -> None:
    part, others = ExtrapolatedKL(alpha=3.0), roles()
    target = torch.zeros(4, dtype=torch.long)
    for logits, still in ((part.extrapolated(others), True), (distributions(4, 6, seed=5), False)):
        leaf = logits.clone().requires_grad_()
        slope = torch.autograd.grad(part(leaf, target, others).sum(), leaf)[0]
        assert bool(slope.abs().max() < 1e-12) == still
        torch.testing.assert_close(slope.sum(-1), torch.zeros(4, dtype=torch.float64))
    shifted = {name: x + 2 for name, x in others.items()}
    torch.testing.assert_close(part(leaf, target, shifted), part(leaf + 1, target, others))
    assert ((part.weight(others) > part.floor) & (part.weight(others) <= part.floor + 2 * part.alpha)).all()


def test_aligndistil_weighs_what_gkd_would_not() -> None:
    assert aligndistil(beta=0.2).replace(regularizers=()) == gkd(student_share=1.0).replace(regularizers=())
    assert aligndistil(beta=0.2).get("regularizers.DistributionLoss.coef") == 0.2


# OTR -------------------------------------------------------------------------------------------------------------------


def test_one_token_rollouts_without_punishment_are_weighted_fine_tuning() -> None:
    part, logits, target = OneToken(samples=50, wrong=0.0), distributions(4, 6), torch.tensor([0, 3, 5, 5])
    leaf = logits.clone().requires_grad_()
    found = torch.autograd.grad(part(leaf, target, {}).sum(), leaf)[0]
    supervised = torch.autograd.grad(-leaf.log_softmax(-1).gather(-1, target[:, None]).sum(), leaf)[0]
    hits = part.frequency(logits, target).gather(-1, target[:, None])
    torch.testing.assert_close(found, hits * supervised)
    torch.testing.assert_close(50 * hits, (50 * hits).round())


def test_the_expectation_at_temperature_one_is_dynamic_fine_tuning() -> None:
    part, logits, target = OneToken(samples=None, kappa=1.0, wrong=0.0), distributions(4, 6), torch.arange(4)
    chosen = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    torch.testing.assert_close(part(logits, target, {}), -chosen.exp() * chosen)


def test_draws_tend_to_the_expectation_and_are_made_at_kappa() -> None:
    logits, target = distributions(3, 6), torch.arange(3)
    many, exact = (OneToken(samples=n, kappa=2.0).frequency(logits, target) for n in (40_000, None))
    torch.testing.assert_close(exact, (logits / 2).softmax(-1))
    torch.testing.assert_close(many, exact, rtol=0, atol=0.01)
    torch.testing.assert_close(many.sum(-1), torch.ones(3, dtype=torch.float64))


def test_a_full_reward_for_every_token_ignores_the_label() -> None:
    logits = distributions(2, 6)
    losses = [OneToken(samples=None, wrong=1.0)(logits, torch.full((2,), t), {}) for t in (0, 4)]
    torch.testing.assert_close(*losses)


def test_a_label_without_a_hit_rises_against_the_tokens_that_were_drawn() -> None:
    part, logits, target = OneToken(wrong=-0.1), torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0])
    leaf = logits.requires_grad_()
    loss = part.loss(leaf, target, torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64))
    down = -torch.autograd.grad(loss.sum(), leaf)[0][0]
    assert down[0] > 0 > down[1]


def test_draws_depend_on_the_token_and_not_on_its_company_or_float_noise() -> None:
    logits, target = distributions(64, 6), torch.arange(64) % 6
    part = OneToken(samples=16)
    whole, order = part.frequency(logits, target), torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], part.frequency(logits[order], target[order]))
    assert torch.equal(whole, part.frequency(logits + 1e-12, target))
    keys = token_key(logits, target).unique()
    u = uniforms(keys, 2000)
    assert len(keys) > 60
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(torch.corrcoef(u).fill_diagonal_(0).abs().max()) < 0.15


def test_otr_has_no_loss_but_its_own() -> None:
    recipe, batch = otr(), random_batch()
    loss, found = gradients(recipe, ready(recipe, batch))
    key = recipe.live[0].key
    assert float(loss) == pytest.approx(
        float((TokenMean()(batch) * ready(recipe, batch).members("statistic")[key]).sum())
    )
    assert not found["logp"].any()


# Demonstrations --------------------------------------------------------------------------------------------------------


class Scribe:
    """A sampler that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def generate(self, tokens: tuple[int, ...], *, n: int, **_: Any) -> list[Response]:
        self.asked.append("generate")
        return [Response([1], [0.0], [0.0], "eos") for _ in range(n)]

    async def logprobs(self, tokens: tuple[int, ...], written: tuple[int, ...], *, temperature: float) -> Response:
        self.asked.append("score")
        return Response(list(written), [0.0] * len(written), [0.0] * len(written), "eos")


def drawn(share: float, prompts: int) -> tuple[Scribe, list[list[Response]]]:
    scribe = Scribe()
    part = Demonstrated(size=3, share=share)
    asked = [ask(scribe, (1, 2), 2, (0, 7, i), solution=(5, 6, 7)) for i in range(prompts)]
    return scribe, [asyncio.run(part.draw(*p)) for p in asked]


def test_demonstrations_take_their_share_of_the_prompts() -> None:
    scribe, responses = drawn(1.0, 4)
    assert scribe.asked == ["score"] * 4
    assert [[r.tokens for r in group] for group in responses] == [[[5, 6]]] * 4, "cut at the budget"
    scribe, responses = drawn(0.0, 4)
    assert scribe.asked == ["generate"] * 4
    assert all(len(group) == 3 for group in responses)
    asked = drawn(0.3, 300)[0].asked
    assert 60 < asked.count("score") < 120
    assert asked == drawn(0.3, 300)[0].asked


def test_the_sampler_scores_what_others_wrote_as_it_scores_its_own() -> None:
    model, tokenizer = random_tiny(dtype=torch.float64)
    sampler = LocalSampler(split_model(model), [tokenizer.eos_token_id])

    async def both() -> tuple[Response, Response]:
        [own] = await sampler.generate((5, 6, 7), n=1, max_tokens=9, temperature=0.7, key=(1,))
        return own, await sampler.logprobs((5, 6, 7), tuple(own.tokens), temperature=0.7)

    [(own, scored)] = sampler.run([both()])
    assert scored.tokens == own.tokens
    torch.testing.assert_close(scored.logp, own.logp)
    torch.testing.assert_close(scored.entropy, own.entropy)
    assert (scored.finished, scored.temperature, scored.version) == (own.finished, 0.7, 0)


# ORPO with chi-squared -------------------------------------------------------------------------------------------------


def test_at_the_reference_the_chi_squared_penalty_rests_on_its_floor() -> None:
    batch = random_batch()
    leaf = batch.ref_logp.clone().requires_grad_()
    part = SequenceDivergence(coef=0.3)
    loss = part(batch.replace(logp=leaf))
    assert float(loss.detach()) == pytest.approx(0.3e-2)
    assert not torch.autograd.grad(loss, leaf)[0].any()


def test_all_tokens_of_a_response_are_pushed_alike_and_back() -> None:
    batch = random_batch(gaps=True)
    leaf = batch.logp.clone().requires_grad_()
    part = SequenceDivergence(coef=1.0, kind="chi2", limit=50.0)
    found = torch.autograd.grad(part(batch.replace(logp=leaf)), leaf)[0]
    u = ((batch.logp - batch.ref_logp) * batch.mask).sum(-1, keepdim=True)
    torch.testing.assert_close(found, (u.exp() - (-u).exp()) / 9 * batch.mask)


def test_sequence_divergences_near_the_reference_and_far_from_it() -> None:
    batch = random_batch()
    near = batch.replace(logp=batch.ref_logp + 1e-4 * distributions(9, 6))
    u = ((near.logp - near.ref_logp) * near.mask).sum(-1)
    part = SequenceDivergence()
    assert float(part.estimate(near, "chi2")) == pytest.approx(float((u**2).mean()), rel=1e-3)
    assert float(part.estimate(near, "kl")) == pytest.approx(float((u**2).mean()) / 2, rel=1e-3)
    far = batch.replace(logp=batch.ref_logp + 1e4)
    assert part(far).isfinite()
    assert tamed_expm1(torch.tensor(12.0), 10.0).item() == pytest.approx(3 * math.exp(10) - 1, rel=1e-6)


def test_no_token_kl_tells_what_a_sequence_divergence_tells() -> None:
    """Two batches with the same token log-ratios, spread over the responses in another way."""
    mask, ref = torch.ones(2, 2, dtype=torch.float64), torch.full((2, 2), -1.0, dtype=torch.float64)
    apart, together = (
        make_batch(mask=mask, ref_logp=ref, logp=ref + torch.tensor(x, dtype=torch.float64))
        for x in ([[0.5, -0.5], [0.5, -0.5]], [[0.5, 0.5], [-0.5, -0.5]])
    )
    assert float(kl_estimate(apart.logp, ref, "k3").mean()) == float(kl_estimate(together.logp, ref, "k3").mean())
    assert float(SequenceDivergence().estimate(apart, "chi2")) == 0
    assert float(SequenceDivergence().estimate(together, "chi2")) > 1


def test_orpo_without_its_penalty_is_ppo() -> None:
    parent = ppo(0.4, 0.4, kl_coef=0.0)
    same(orpo_chi2(coef=0.0), parent, random_batch())
    same(orpo_chi2(coef=0.0, penalty="reward"), parent, random_batch())
    assert orpo_chi2().unit == "batch"


def test_the_scale_of_the_distance_is_trimmed() -> None:
    d = torch.tensor([-0.5, 0.1, 0.4, 9.0], dtype=torch.float64)
    grown = d.exp() - 1
    assert float(trimmed_mean(grown, 0.25)) == pytest.approx(float(grown[1:3].mean()))
    assert float(trimmed_mean(grown, 0.24)) == pytest.approx(float(grown.mean()))
    assert float(trimmed_mean(grown[:0], 0.1)) == 0
    torch.testing.assert_close(
        occupancy_distance(d, "sqrt-chi2", 0.25), occupancy_distance(d, "chi2", 0.25) / grown[1:3].mean().sqrt()
    )
    low = -d.abs()
    torch.testing.assert_close(occupancy_distance(low, "sqrt-chi2", 0.0), low.exp() - 1)


def test_a_penalty_in_the_reward_is_the_distance_of_the_response() -> None:
    batch = random_batch()
    after = OccupancyPenalty(coef=0.5, kind="kl")(batch)
    u = ((batch.old_logp - batch.ref_logp) * batch.mask).sum(-1)
    torch.testing.assert_close(after.reward, batch.reward - 0.5 * u)


# Posteriors ------------------------------------------------------------------------------------------------------------

PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([0.2, -0.4, 1.5, 0.9], dtype=torch.float64)


def test_the_objective_is_the_evidence_less_the_distance_to_the_posterior() -> None:
    for seed, beta in itertools.product(range(3), (0.2, 1.0, 7.0)):
        policy = distributions(4, seed=seed).softmax(-1)
        best = tilt(PRIOR, REWARD, 1 / beta)
        value, evidence = regularised_value(policy, PRIOR.log(), REWARD, beta), log_evidence(PRIOR.log(), REWARD, beta)
        torch.testing.assert_close(value, beta * (evidence - kl(policy, best)))
        torch.testing.assert_close(regularised_value(best, PRIOR.log(), REWARD, beta), beta * evidence)
        shifted = regularised_value(policy, PRIOR.log(), REWARD + 3, beta)
        torch.testing.assert_close(shifted, value + 3)
        torch.testing.assert_close(beta * log_evidence(PRIOR.log(), REWARD + 3, beta), beta * evidence + 3)


def test_the_posterior_at_its_ends() -> None:
    torch.testing.assert_close(tilt(PRIOR, REWARD, 1e-12), PRIOR)
    torch.testing.assert_close(tilt(PRIOR, torch.ones_like(PRIOR), 5.0), PRIOR)
    assert float(tilt(PRIOR, REWARD, 1e3)[2]) == pytest.approx(1)
    barred = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert tilt(barred, REWARD, 1.0)[2:].tolist() == [0, 0]
    assert float(kl(barred, PRIOR)) == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.3))


def enumerated(logits: Tensor, counts: list[int]) -> Batch:
    """One-token responses to one prompt, outcome i ``counts[i]`` times."""
    index = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    logp = logits.log_softmax(-1)
    return make_batch(
        mask=torch.ones(len(index), 1, dtype=torch.float64),
        group=torch.zeros(len(index), dtype=torch.long),
        reward=REWARD[index],
        old_logp=logp.detach()[index, None],
        ref_logp=PRIOR.log()[index, None],
        logp=logp[index, None],
    )


def test_reinforce_with_the_kl_in_the_reward_descends_the_distance_to_the_posterior() -> None:
    beta, policy = 0.5, torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
    recipe = rl_as_bayes(beta=beta).replace(controllers=())
    for start, moves in ((policy.log(), True), (tilt(PRIOR, REWARD, 1 / beta).log(), False)):
        logits = start.clone().requires_grad_()
        total = torch.zeros(4, dtype=torch.float64)
        for i in range(4):  # each outcome alone, weighed by its probability
            one = enumerated(logits, [int(i == j) for j in range(4)])
            loss = objective(recipe, ready(recipe, one).replace(logp=one.logp))
            total += start.softmax(-1)[i] * torch.autograd.grad(loss, logits)[0]
        distance = beta * kl(logits.softmax(-1), tilt(PRIOR, REWARD, 1 / beta))
        torch.testing.assert_close(total, torch.autograd.grad(distance, logits)[0])
        assert bool(total.abs().max() > 1e-3) == moves


def test_posterior_weights_descend_the_distance_from_the_posterior() -> None:
    beta, recipe = 0.5, rl_as_bayes(beta=0.5, direction="forward")
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    batch = enumerated(logits, [1, 1, 1, 1])  # a uniform policy: every outcome once is its distribution
    best = tilt(PRIOR, REWARD, 1 / beta)
    weight = PosteriorWeight(beta=beta)(batch)[:, 0]
    torch.testing.assert_close(weight, best / 0.25)
    assert float(weight.mean()) == pytest.approx(1)
    loss = objective(recipe, ready(recipe, batch).replace(logp=batch.logp))
    found = torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(found, torch.autograd.grad(kl(best, logits.softmax(-1)), logits)[0])
    arrived = enumerated(best.log(), [2, 1, 3, 1])
    torch.testing.assert_close(PosteriorWeight(beta=beta)(arrived), torch.ones(7, 1, dtype=torch.float64))


def test_posterior_weights_of_extreme_rewards_stay_finite() -> None:
    batch = random_batch().replace(reward=1e4 * random_batch().reward)
    weight = PosteriorWeight(beta=1e-3)(batch)
    assert weight.isfinite().all()
    for g in range(3):
        rows = batch.group == g
        assert float(weight[rows].amax(1).mean()) == pytest.approx(1)


def test_without_its_kl_rl_as_bayes_is_reinforce() -> None:
    plain = rl_as_bayes().replace(shape=(), probes=())
    assert plain == reinforce(group_size=4)


def test_the_gap_to_the_posterior() -> None:
    reward = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 0.9]], dtype=torch.float64)
    probe = PosteriorGap(beta=0.5)
    there = probe.samples(reward, reward / 0.5 - 3)  # log-ratio of the posterior: log Z is 3
    assert there["posterior/gap"] == pytest.approx(0)
    assert there["posterior/ess"] == pytest.approx(1)
    assert there["posterior/log_evidence"] == pytest.approx(3)
    at_start = probe.samples(reward, torch.zeros_like(reward))
    assert at_start["posterior/gap"] > 0
    assert at_start["posterior/objective"] == pytest.approx(float(reward.mean()))
    assert at_start["posterior/ess"] < 1


# Best of N and the front -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_is_the_best_of_n_draws(n: int) -> None:
    reward = torch.tensor([0.1, 0.7, 0.7, -1.0], dtype=torch.float64)  # a tie, left to chance
    base = torch.tensor([0.3, 0.2, 0.1, 0.4], dtype=torch.float64)
    wanted = torch.zeros(4, dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=n):
        top = max(reward[list(draws)])
        winners = [i for i in draws if reward[i] == top]
        for i in winners:
            wanted[i] += base[list(draws)].prod() / len(winners)
    torch.testing.assert_close(best_of(base, reward, n), wanted)
    if n == 1:
        assert torch.equal(best_of(base, reward, 1), base)


def test_best_of_n_at_its_ends_and_under_monotone_maps() -> None:
    assert float(best_of(PRIOR, REWARD, 4000)[2]) == pytest.approx(1)
    torch.testing.assert_close(best_of(PRIOR, REWARD, 5), best_of(PRIOR, REWARD.exp(), 5))
    assert float((tilt(PRIOR, REWARD, 2.0) - tilt(PRIOR, REWARD.exp(), 2.0)).abs().max()) > 0.1
    fine = torch.full((1000,), 1 / 1000, dtype=torch.float64)
    order = torch.arange(1000, dtype=torch.float64)
    for n in (2, 8, 32):
        assert float(kl(best_of(PRIOR, REWARD, n), PRIOR)) < best_of_kl(n)
        assert float(kl(best_of(fine, order, n), fine)) == pytest.approx(best_of_kl(n), rel=0.03)


def test_at_equal_distance_the_tilt_has_most_reward() -> None:
    for n, seed in itertools.product((2, 4, 9), range(3)):
        reward = distributions(4, seed=seed)
        best = best_of(PRIOR, reward, n)
        distance = float(kl(best, PRIOR))
        tilted = tilt(PRIOR, reward, strength_at(PRIOR, reward, distance))
        assert float(kl(tilted, PRIOR)) == pytest.approx(distance, rel=1e-9)
        assert float((tilted * reward).sum()) >= float((best * reward).sum())
        level = tilt(PRIOR, reward, 0.7)
        # Pythagoras: among distributions of one mean reward the tilt is nearest
        other = (
            level + 0.02 * torch.linalg.qr(torch.stack([torch.ones(4).double(), reward], 1), mode="complete")[0][:, 3]
        )
        torch.testing.assert_close(kl(other, PRIOR) - kl(level, PRIOR), kl(other, level))


def test_a_distance_out_of_reach_is_refused() -> None:
    assert strength_at(PRIOR, REWARD, 0.0) == 0
    assert strength_at(PRIOR, REWARD, 1e-6) > 0
    with pytest.raises(ValueError, match=r"no tilt lies 2 nats away.*1.60944 nats"):
        strength_at(PRIOR, REWARD, 2.0)


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_the_expected_best_is_the_mean_over_all_choices_of_n(n: int) -> None:
    reward = distributions(2, 5)
    wanted = [sum(max(c) for c in itertools.combinations(row, n)) / math.comb(5, n) for row in reward.tolist()]
    torch.testing.assert_close(expected_best(reward, n), torch.tensor(wanted, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs at least 6 draws, there are 5"):
        expected_best(reward, 6)


def test_the_front_in_the_log() -> None:
    reward, log_ratio = distributions(3, 6), torch.full((3, 6), 0.4, dtype=torch.float64)
    found = alignment_asymptotics(most=4)[0].samples(reward, log_ratio)
    assert {name.split("@")[1] for name in found if "@" in name} == {"1", "2", "4"}
    assert found["front/kl"] == pytest.approx(0.4)
    assert found["best_of/reward@1"] == found["front/reward"] == pytest.approx(float(reward.mean()))
    assert found["best_of/reward@1"] < found["best_of/reward@2"] < found["best_of/reward@4"]
    assert found["tilt/reward@1"] == pytest.approx(found["front/reward"])
    assert found["tilt/reward@4"] > found["tilt/reward@2"]
    level = BestOf().samples(torch.ones(2, 3), torch.zeros(2, 3))
    assert level["tilt/reward@2"] == level["best_of/reward@2"] == 1


# Subnetworks -----------------------------------------------------------------------------------------------------------


def test_update_sparsity_in_the_log() -> None:
    start = {"layers.0.q_proj.weight": torch.ones(4, 4), "norm.weight": torch.ones(8)}
    now = {name: x.clone() for name, x in start.items()}
    probe = UpdateSparsity(rank=True)
    assert set(probe.parameters(now, start).values()) == {1.0, 0.0}
    now["layers.0.q_proj.weight"][0, 1] += 0.5
    now["layers.0.q_proj.weight"][2, 1] += 0.5
    found = probe.parameters(now, start)
    wanted = {"all": 22 / 24, "q_proj": 14 / 16, "norm": 1.0, "rank": 0.25}
    assert found == {f"sparsity/{name}": pytest.approx(x) for name, x in wanted.items()}


def test_sparsity_depends_on_precision_and_tolerance() -> None:
    start = {"weight": torch.linspace(0.5, 2, 100)}
    now = {"weight": start["weight"] * (1 + 1e-4)}
    assert UpdateSparsity().parameters(now, start)["sparsity/all"] > 0.9
    assert UpdateSparsity(precision="float32").parameters(now, start)["sparsity/all"] == 0
    assert UpdateSparsity(precision="float32", tolerance=1e-3).parameters(now, start)["sparsity/all"] == 1


def test_overlap_of_masks() -> None:
    a, b = (distributions(10_000, seed=s) > cut for s, cut in ((0, 0.3), (1, 1.0)))
    torch.testing.assert_close(overlap(a, b) * a.sum(), overlap(b, a) * b.sum())
    assert float(overlap(a, b)) == pytest.approx(float(1 - sparsity(b)), abs=0.02), "chance"
    assert float(sparsity(updated(a.double(), a.double(), 0.0))) == 1
    assert rl_subnetworks(rank=True) == (UpdateSparsity(rank=True),)


# The cliff -------------------------------------------------------------------------------------------------------------


def test_a_gap_protects_the_best_answer_and_a_tie_does_not() -> None:
    value = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    for seed in range(20):
        change = 0.199 * (2 * torch.rand(3, generator=torch.Generator().manual_seed(seed)).double() - 1)
        assert torch.equal(optimal_set(value + change), optimal_set(value))
    tied = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    assert optimal_set(tied).tolist() == [True, True, False]
    assert optimal_set(tied + torch.tensor([0, 1e-6, 0])).tolist() == [False, True, False]


def test_the_soft_policy_moves_no_further_than_its_bound_and_gives_away_no_more() -> None:
    for seed, alpha in itertools.product(range(10), (0.05, 0.5, 20.0)):
        q, change = distributions(5, seed=seed), 0.1 * distributions(5, seed=seed + 50)
        moved = (soft_policy(q + change, alpha) - soft_policy(q, alpha)).abs().sum()
        assert float(moved) <= float(stability_bound(change, alpha))
        lost = q.max() - (soft_policy(q, alpha) * q).sum()
        assert 0 <= float(lost) <= alpha * math.log(5)
    tied, nudge = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([0.0, 1e-3], dtype=torch.float64)
    jumps = [float((soft_policy(tied + nudge, a) - soft_policy(tied, a)).abs().sum()) for a in (1e-5, 1.0, 1e5)]
    assert jumps[0] == pytest.approx(1)
    assert jumps[0] > jumps[1] > jumps[2]
    torch.testing.assert_close(soft_policy(tied * 0 + nudge, 1e9), tied / 2)


def test_credit_divided_by_its_spread_jumps_and_centred_credit_does_not() -> None:
    reward = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    found = RewardCliff(epsilon=1e-4, alpha=0.1).samples(reward, torch.zeros_like(reward))
    assert found["cliff/ties"] == 0.5
    assert found["cliff/advantage"] > 0.3
    assert found["cliff/centred"] < 1e-4
    assert found["cliff/policy"] < 1e-4 / 0.1
    assert policy_cliff(epsilon=0.5) == (RewardCliff(epsilon=0.5),)


def test_the_task_of_ties() -> None:
    task, plain = load_task("ties:0.01", heldout=16), load_task("ties", heldout=16)
    judge, level = make_judge(task.judge), make_judge(plain.judge)
    assert task.train[3] == plain.train[3]
    assert task.train[3] != load_task("ties", seed=1, heldout=1).train[3]
    chosen = set()
    for example in [*(task.train[i] for i in range(60)), *task.heldout]:
        said = {x: judge(example, f"#### {x}") for x in "abcde"}
        best = [x for x, v in said.items() if v.correct]
        assert len(best) in (2, 3)
        assert {x: v.score for x, v in said.items()} == {
            x: (1.01 if x == best[0] else 1.0) if x in best else 0.0 for x in "abcde"
        }
        assert {level(example, f"#### {x}").score for x in best} == {1.0}
        assert judge(example, example.solution or "").correct
        chosen.add(best.index(example.answer))
        assert not judge(example, example.answer).formatted
    assert {0, 1} <= chosen, "solutions name any of the best"
    held = {e.prompt[0]["content"] for e in task.heldout}
    assert not held & {task.train[i].prompt[0]["content"] for i in range(500)}
    for wrong in ("ties:x", "ties:inf"):
        with pytest.raises(UserError, match="expected a finite number after the colon"):
            load_task(wrong)
    with pytest.raises(UserError, match="brings its own judge"):
        load_task("ties", judge="exact")


# Bad fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: JSD(beta=1.2),
        lambda: JSD(temperature=0.0),
        lambda: gkd(student_share=1.5),
        lambda: gkd(beta=-0.1),
        lambda: ExtrapolatedKL(floor=0.0),
        lambda: OneToken(samples=0),
        lambda: OneToken(kappa=0.0),
        lambda: KL(target="critic"),  # type: ignore[arg-type]
        lambda: orpo_chi2(divergence="js"),
        lambda: SequenceDivergence(limit=0.0),
        lambda: rl_as_bayes(beta=0.0),
        lambda: rl_as_bayes(direction="forward", group_size=1),
        lambda: UpdateSparsity(tolerance=-1.0),
        lambda: RewardCliff(alpha=0.0),
        lambda: Schedule(field="x", start_value=0.0, end_value=1.0, steps=0),
    ],
)
def test_bad_fields_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"validation error|needs at least 2"):
        make()
