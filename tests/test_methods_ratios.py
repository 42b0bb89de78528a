"""Methods that change the ratio, its bounds, or what happens outside them: limits, and facts of their papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.methods.clip.bapo import BalancedBounds, bapo
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.clip.dcpo_clipping import ProbabilityBounds, SmoothNormalise, VisitMoments, dcpo_clipping
from policyopt.methods.clip.dual_clip import dual_clip
from policyopt.methods.clip.gppo_klear import GPPOClip, gppo_klear
from policyopt.methods.clip.hapo_heterogeneous import EntropyBounds, TokenNormalise, entropy_scale, hapo_heterogeneous
from policyopt.methods.clip.stablereinforce import SigmaFilter, stablereinforce
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.dhpo import dhpo
from policyopt.methods.ratio.gmpo import gmpo
from policyopt.methods.ratio.grpo_guard import (
    KL_FROM_OLD,
    CentredRatio,
    PositionWeight,
    centred,
    grpo_guard,
)
from policyopt.methods.ratio.gspo import gspo
from policyopt.methods.ratio.minirl import minirl
from policyopt.methods.ratio.minpro import PrefixMinRatio, minpro
from policyopt.methods.ratio.tis import tis
from policyopt.objective import shaped
from policyopt.parts import FixedBounds, LogProb, Normalise, PPOClip, SamplerMismatch, SequenceRatio, TokenRatio
from policyopt.parts.weight.mismatch import Mode
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import gradients, on_policy, random_batch, ready


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def assert_equal_objectives(one: Recipe, other: Recipe, batch: Batch) -> None:
    """The same loss and the same gradient on a batch as it was drawn."""
    (loss, got), (wanted_loss, wanted) = (gradients(r, ready(r, batch)) for r in (one, other))
    same(loss, wanted_loss)
    for name in wanted:
        same(got[name], wanted[name])
    assert got["logp"].any()


def dlogp(recipe: Recipe, batch: Batch) -> Tensor:
    return gradients(recipe, ready(recipe, batch))[1]["logp"]


def tokens(ratio: list[float], advantage: list[float]) -> Batch:
    """One row of tokens with these ratios and advantages; old probabilities 1/2."""
    log_ratio = torch.tensor([ratio], dtype=torch.float64).log()
    old = torch.full_like(log_ratio, math.log(0.5))
    return make_batch(
        mask=torch.ones_like(old),
        logp=old + log_ratio,
        old_logp=old,
        advantage=torch.tensor([advantage], dtype=torch.float64),
    )


def token_gradient(part: Any, batch: Batch) -> list[float]:
    """dl/dlogp of each token of the only row, for surrogates that couple no tokens."""
    logp = batch.logp.detach().clone().requires_grad_()
    moved = batch.replace(logp=logp)
    return torch.autograd.grad(part(TokenRatio()(moved), moved).sum(), logp)[0][0].tolist()


# What each method becomes in its limit -------------------------------------------------------------------------------


def one_token(batch: Batch) -> Batch:
    mask = torch.zeros_like(batch.mask)
    mask[:, 0] = 1
    return batch.replace(mask=mask)


def same_sampler(batch: Batch) -> Batch:
    return batch.replace(rollout_logp=batch.old_logp)


def long_rows(batch: Batch) -> Batch:
    return batch.replace(mask=torch.ones_like(batch.mask))


def as_it_is(batch: Batch) -> Batch:
    return batch


LIMITS: dict[str, tuple[Recipe, Recipe, Callable[[Batch], Batch]]] = {
    "dual-clip without a ceiling is PPO": (dual_clip(dual_clip=None), ppo(), as_it_is),
    "dual-clip with a high ceiling is PPO": (dual_clip(dual_clip=1e6), ppo(), as_it_is),
    "gmpo without bounds is GSPO without bounds": (gmpo(None, None), gspo(None, None), as_it_is),
    "gmpo on single tokens is a clip of ratios": (
        gmpo(0.4, 0.4), grpo(1 - math.exp(-0.4), math.exp(0.4) - 1, kl_coef=0.0), one_token,
    ),
    "dhpo with all weight on tokens is GRPO": (dhpo(token_weight=1.0), grpo(0.2, 0.28, kl_coef=0.0), as_it_is),
    "dhpo with all weight on sequences is GSPO-token": (dhpo(token_weight=0.0), gspo(level="token"), as_it_is),
    "dhpo by entropy on single tokens is GRPO": (dhpo(mix="entropy"), grpo(0.2, 0.28, kl_coef=0.0), one_token),
    "minpro on single tokens is CISPO": (minpro(), cispo(), one_token),
    "minpro on-policy is CISPO": (minpro(0.5, 0.3), cispo(0.5, 0.3), on_policy),
    "stablereinforce far inside its limits is PPO's clip": (
        stablereinforce(sigma=1e6),
        stablereinforce().replace(
            ratio=TokenRatio(),
            advantage=Normalise(centre="none", scale="none", gamma=1.0, whiten="token", ddof=0),
        ),
        as_it_is,
    ),
    "hapo without adaption is DAPO": (
        hapo_heterogeneous(clip_alpha=0.0, adv_beta=0.0, overlong_share=0.2).replace(advantage=dapo().advantage),
        dapo(0.2, 0.2),
        as_it_is,
    ),
    "hapo's advantage on rows of one length is GRPO's with a population std": (
        hapo_heterogeneous(clip_alpha=0.0, adv_beta=0.0, overlong_share=0.2, fallback_threshold=None),
        dapo(0.2, 0.2).replace(advantage=Normalise(ddof=0)),
        long_rows,
    ),
    "bapo with its target met is PPO's clip": (
        bapo(target=0.0), bapo().replace(surrogate=PPOClip(low=0.4, high=0.2)), as_it_is,
    ),
    "gppo inside the bounds is PPO": (
        gppo_klear(10.0, 10.0, sft_coef=0.0, dual_clip=None), gppo_klear(sft_coef=0.0).replace(surrogate=PPOClip(low=None, high=None)),
        as_it_is,
    ),
    "minirl where sampler, trainer and policy agree has REINFORCE's gradient": (
        minirl(), minirl().replace(weight=()), lambda b: same_sampler(on_policy(b)),
    ),
    "tis with one engine is PPO": (tis(), ppo(), same_sampler),
    "tis without bounds at the level of tokens keeps the weight": (
        tis(weight_high=None), tis(mode="token_mask", weight_high=None), as_it_is,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_limit(name: str, seed: int) -> None:
    one, other, change = LIMITS[name]
    assert_equal_objectives(one, other, change(random_batch(seed=seed, drift=0.5)))


def test_the_recipes_are_written_as_their_parents_where_nothing_differs() -> None:
    assert dual_clip(dual_clip=None) == ppo()
    assert minpro().replace(ratio=TokenRatio()) == cispo()
    assert tis().replace(weight=()) == ppo()


# What happens outside the bounds -------------------------------------------------------------------------------------


def test_a_dual_clip_ends_the_loss_of_bad_tokens_alone() -> None:
    batch = tokens([0.5, 2.0, 5.0, 5.0, 2.9], [-1.0, -1.0, -1.0, 1.0, -2.0])
    part = PPOClip(low=0.2, high=0.2, dual=3.0)
    loss = part(TokenRatio()(batch), batch)[0].tolist()
    assert loss == pytest.approx([0.8, 2.0, 3.0, -1.2, 5.8])
    assert token_gradient(part, batch) == pytest.approx([0.0, 2.0, 0.0, 0.0, 5.8])
    assert part.metrics(TokenRatio()(batch), batch)["clip_fraction/dual"][0].tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_gppo_has_the_value_of_ppo_and_a_gradient_everywhere(seed: int) -> None:
    batch = ready(grpo(), random_batch(seed=seed, drift=0.8))
    log_ratio = TokenRatio()(batch)
    preserving, plain = GPPOClip(low=0.2, high=0.28), PPOClip(low=0.2, high=0.28)
    same(preserving(log_ratio, batch), plain(log_ratio, batch))
    clipped = sum(plain.metrics(log_ratio, batch).values()) * batch.mask > 0
    assert clipped.any()
    recipe = gppo_klear(0.2, 0.28, sft_coef=0.0, dual_clip=None)
    got, wanted = (gradients(recipe.replace(surrogate=s), batch)[1]["logp"] for s in (preserving, plain))
    same(got[~clipped], wanted[~clipped])
    assert not wanted[clipped].any()
    bound = (0.8 + 0.48 * (batch.advantage > 0).double()) * batch.advantage.abs() / batch.mask.sum()
    same(got[clipped].abs(), bound[clipped])


def test_gppo_scales_what_is_clipped() -> None:
    batch = tokens([2.0, 0.5, 1.1, 0.5, 2.0], [1.0, -1.0, 1.0, 1.0, -1.0])
    part = GPPOClip(low=0.2, high=0.28, beta_low=0.5, beta_high=2.0)
    wanted = [-2.56, 0.4, -1.1, -0.5, 2.0]
    assert part(TokenRatio()(batch), batch)[0].tolist() == pytest.approx(wanted)
    assert token_gradient(part, batch) == pytest.approx(wanted)  # of c exp(log r) the slope is the value
    silent = GPPOClip(low=0.2, high=0.28, beta_low=0.0, beta_high=0.0, dual=1.5)
    assert token_gradient(silent, batch) == pytest.approx([0.0, 0.0, -1.1, -0.5, 0.0])


def test_right_answers_are_imitated_and_without_any_nothing_is() -> None:
    batch = random_batch(seed=2)
    with_term, without = gppo_klear(sft_coef=0.3), gppo_klear(sft_coef=0.0)
    right = batch.correct[:, None] * batch.mask
    pulled = dlogp(with_term, batch) - dlogp(without, batch)
    same(pulled, -0.3 * right / right.sum())
    none = batch.replace(correct=torch.zeros_like(batch.correct))
    same(dlogp(with_term, none), dlogp(without, none))


def test_a_clipped_token_of_gmpo_is_silent_and_still_counts() -> None:
    batch = ready(gmpo(), random_batch(seed=4, drift=0.8))
    log_ratio = TokenRatio()(batch)
    good = batch.advantage > 0
    clipped = torch.where(good, log_ratio > 0.4, log_ratio < -0.4) & batch.mask.bool()
    _, got = gradients(gmpo(), batch)
    assert clipped.any()
    for i in range(len(batch.mask)):
        mine = batch.mask[i].bool()
        limited = torch.where(good[i], log_ratio[i].clamp(max=0.4), log_ratio[i].clamp(min=-0.4))[mine]
        rho = limited.mean().exp()
        wanted = -batch.advantage[i] * rho / (9 * mine.sum()) * batch.mask[i] * ~clipped[i]
        same(got["logp"][i], wanted)


@pytest.mark.parametrize("seed", range(3))
def test_both_branches_of_dhpo_must_clip_to_silence_a_token(seed: int) -> None:
    recipe = dhpo(mix="entropy", seq_clip_low=0.1, seq_clip_high=0.1)
    batch = ready(recipe, random_batch(seed=seed, drift=0.8))
    w = recipe.surrogate.token_weight(batch)  # type: ignore[attr-defined]
    token, sequence = (
        gradients(r, batch)[1]["logp"] for r in (dhpo(token_weight=1.0), dhpo(token_weight=0.0, seq_clip_low=0.1, seq_clip_high=0.1))
    )  # fmt: skip
    same(gradients(recipe, batch)[1]["logp"], w * token + (1 - w) * sequence)
    scaled = batch.replace(sampled_entropy=batch.sampled_entropy * 7)
    same(recipe.surrogate.token_weight(scaled), w)  # type: ignore[attr-defined]
    assert ((w * batch.mask).amax(-1) == 1).all()


def test_the_entropy_of_dhpo_may_be_held_against_the_batch_and_point_the_other_way() -> None:
    batch = random_batch()
    entropy = batch.sampled_entropy * batch.mask
    turned = dhpo(mix="entropy", entropy_norm="batch", entropy_to="sequence")
    same(turned.surrogate.token_weight(batch) * batch.mask, (1 - entropy / entropy.max()) * batch.mask)  # type: ignore[attr-defined]
    assert (dhpo().unit, dhpo(mix="entropy").unit, turned.unit) == ("row", "row", "batch")


# Prefixes and samplers -----------------------------------------------------------------------------------------------


def test_the_prefix_enters_by_its_smallest_ratio() -> None:
    batch = random_batch(seed=3, lengths=(6,) * 9, gaps=True)
    ratio = (batch.logp - batch.old_logp).exp()
    got = PrefixMinRatio()(batch).exp()
    for i in range(9):
        smallest = 1.0
        seen: list[float] = []
        for t in range(6):
            if batch.mask[i, t]:
                smallest = min(seen) if seen else 1.0
                assert float(got[i, t]) == pytest.approx(smallest * float(ratio[i, t]))
                seen.append(float(ratio[i, t]))


def test_a_token_that_has_drifted_damps_those_after_it_and_no_other() -> None:
    batch = random_batch(seed=5, lengths=(6,) * 9)
    low = batch.logp.clone()
    low[:, 2] -= 3
    before, after = PrefixMinRatio()(batch), PrefixMinRatio()(batch.replace(logp=low))
    same(after[:, :2], before[:, :2])
    assert (after[:, 3:] < before[:, 3:]).all()
    got = dlogp(minpro(), batch)
    assert (got[ready(minpro(), batch).advantage != 0] != 0).all()


def test_the_mismatch_rescales_the_gradient_of_minirl_and_never_changes_the_mask() -> None:
    recipe = minirl(mismatch_cap=None)
    batch = random_batch(seed=4, drift=0.8)
    gap = (batch.old_logp - batch.rollout_logp).exp()
    got, plain = dlogp(recipe, batch), dlogp(recipe, same_sampler(batch))
    same(got, plain * gap)
    clipped = dlogp(recipe.replace(weight=(), surrogate=PPOClip(low=0.2, high=0.27)), batch)
    same(plain, clipped)
    assert (plain[batch.mask.bool()] == 0).any()
    capped = dlogp(minirl(mismatch_cap=1.01), batch)
    same(capped, plain * gap.clamp(max=1.01))


def test_a_response_of_minirl_counts_by_its_length() -> None:
    batch = on_policy(random_batch(groups=(4,), lengths=(6, 3, 6, 3)))
    got = dlogp(minirl(), batch.replace(rollout_logp=batch.old_logp, reward=torch.tensor([1.0, 1, 0, 0]).double()))
    same(got.sum(-1)[0], 2 * got.sum(-1)[1])


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("token_truncate", [[0.5, 2.0, 1.5], [0.5, 1.25, 0.0]]),
        ("token_mask", [[0.5, 0.0, 1.5], [0.0, 1.25, 0.0]]),
        ("sequence_truncate", [[2.0, 2.0, 2.0], [0.5, 0.5, 0.0]]),
        ("sequence_mask", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        ("geo_mask", [[0.5, 4.0, 1.5], [0.25, 1.25, 0.0]]),
    ],
)
def test_weights_of_the_sampler(mode: Mode, wanted: list[list[float]]) -> None:
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]], dtype=torch.float64)
    old = torch.tensor([[0.5, 4.0, 1.5], [0.25, 1.25, 9.0]], dtype=torch.float64).log()
    batch = make_batch(mask=mask, old_logp=old, rollout_logp=torch.zeros_like(old))
    part = SamplerMismatch(mode=mode, low=0.5, high=2.0)
    same(part(old, batch) * mask, torch.tensor(wanted, dtype=torch.float64))
    free = SamplerMismatch(mode=mode, low=None, high=None)(old, batch)
    assert (free * mask > 0).sum() == 5


def test_weights_of_whole_responses_are_unbiased() -> None:
    g = torch.Generator().manual_seed(0)
    sampler, trainer = torch.randn(2, 3, generator=g, dtype=torch.float64).log_softmax(-1)
    rows = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    batch = make_batch(mask=torch.ones(9, 2), old_logp=trainer[rows], rollout_logp=sampler[rows])
    weight = SamplerMismatch(mode="sequence_truncate", high=None)(batch.old_logp, batch)[:, 0]
    same(sampler[rows].sum(-1).exp() * weight, trainer[rows].sum(-1).exp())


# Bounds of each token ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "low", "high"),
    [
        (0.9, 0.5 + 0.5 * (1 - 0.64 / 0.9) ** 0.5, 0.5 + 0.5 * (1 + 0.8 / 0.9) ** 0.5),
        (0.01, 0.5, 5.0),
        (1e-6, 0.5, 10.0),
    ],
)
def test_rare_tokens_may_move_far(probability: float, low: float, high: float) -> None:
    old = torch.tensor([[math.log(probability)]], dtype=torch.float64)
    found = ProbabilityBounds()(0.16, 0.2, old, make_batch(mask=torch.ones(1, 1), old_logp=old))
    assert [float(x) for x in found] == pytest.approx([low, high])
    if low > 0.5 and high < 10:  # at the bounds, (r - 1) times the new probability is epsilon
        assert (1 - low) * low * probability == pytest.approx(0.16)
        assert (high - 1) * high * probability == pytest.approx(0.2)


def test_the_position_of_an_entropy_does_not_depend_on_its_power() -> None:
    batch = random_batch(gaps=True)
    h = entropy_scale(batch.entropy, batch.mask, 0.8)
    same(entropy_scale(batch.entropy**3, batch.mask, 0.8), h)
    mine = h[batch.mask.bool()]
    assert float(mine.max()) == 1
    assert float(mine.min()) == -1
    ranked = batch.entropy[batch.mask.bool()].sort().values
    pivot = float(ranked[round(0.8 * (len(ranked) - 1))])
    assert ((mine > 0) == (batch.entropy[batch.mask.bool()] > pivot)).all()
    alike = torch.ones_like(batch.entropy)
    assert not entropy_scale(alike, batch.mask, 0.5).any()


def test_only_one_bound_of_a_token_moves_with_its_entropy() -> None:
    batch = random_batch()
    low, high = EntropyBounds()(0.2, 0.3, batch.logp, batch)
    assert (((low == 0.8) | (high == 1.3))[batch.mask.bool()]).all()
    assert float(low.min()) == pytest.approx(0.6)
    assert float(high.max()) == pytest.approx(1.6)


def test_the_most_confident_token_of_hapo_that_has_not_moved_is_muted() -> None:
    recipe = hapo_heterogeneous()
    batch = ready(recipe, on_policy(random_batch()))
    h = entropy_scale(batch.entropy, batch.mask, 0.8)
    got = gradients(recipe, batch)[1]["logp"]
    plain = gradients(dapo(), batch)[1]["logp"]
    same(got, plain * torch.where(h <= 0, 1 + h, 1.0))  # on-policy all tokens are neutral
    assert not got[h == -1].any()
    moved = batch.replace(logp=batch.old_logp + 0.15)  # r = 1.16: beyond half of the way up, not down
    wide = EntropyBounds()(0.2, 0.2, moved.logp, moved)[1]
    factor = recipe.weight[0](TokenRatio()(moved), moved)
    beyond = math.exp(0.15) >= (1 + wide) / 2
    same(factor, torch.where((h > 0) & beyond, 1 + h, torch.where((h <= 0) & ~beyond, 1 + h, 1.0)))
    assert ((h > 0) & beyond & batch.mask.bool()).any()


def test_advantages_over_tokens_add_up_to_zero() -> None:
    batch = random_batch(groups=(4, 3), lengths=(1, 6, 3, 2, 5, 5, 1))
    advantage = TokenNormalise(fallback=None)(batch)
    for g in range(2):
        mine = advantage[batch.group == g]
        assert float(mine.sum()) == pytest.approx(0, abs=1e-9)
        inside = mine[batch.mask[batch.group == g].bool()]
        assert float(inside.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    one_long = random_batch(groups=(3, 3), lengths=(6, 6, 1, 4, 4, 4)).replace(
        reward=torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    )
    large = TokenNormalise(fallback=None)(one_long).abs().amax(-1)
    limit = float(large[2]) - 1e-6
    fallen = TokenNormalise(fallback=limit)(one_long)
    same(fallen[:3], Normalise()(one_long)[:3])
    same(fallen[3:], TokenNormalise(fallback=None)(one_long)[3:])


def algorithm_1(
    pairs: list[tuple[float, float]], bounds: BalancedBounds, low: float, high: float
) -> tuple[float, float]:
    """The search, token by token."""

    def rho(low: float, high: float) -> float:
        plus = minus = 0.0
        for r, a in pairs:
            if bounds.measure == "gradient-share":
                plus += r * a if a > 0 and r <= high else 0.0
                minus += r * -a if a < 0 and r >= low else 0.0
            else:
                plus += min(r, high) * a if a > 0 else 0.0
                minus += max(r, low) * -a if a < 0 else 0.0
        if bounds.measure == "value-ratio":
            return plus / minus if minus else math.inf
        return plus / (plus + minus) if minus else 1.0

    if bounds.search == "paper":
        i = j = 0
        start_low, start_high = low, high
        while rho(low, high) < bounds.target and low + bounds.low_step <= bounds.low_max + 1e-9:
            if high + bounds.high_step <= bounds.high_max + 1e-9:
                j += 1
                high = start_high + j * bounds.high_step
            else:
                i += 1
                low = start_low + i * bounds.low_step
        return low, high
    while rho(low, high) < bounds.target and low < bounds.low_max - 1e-9:
        low = min(low + bounds.low_step, bounds.low_max)
    while rho(low, high) < bounds.target and high < bounds.high_max - 1e-9:
        high = min(high + bounds.high_step, bounds.high_max)
    return low, high


@pytest.mark.parametrize("search", ["paper", "code"])
@pytest.mark.parametrize("measure", ["gradient-share", "value-share", "value-ratio"])
def test_bounds_are_those_of_the_search(search: Any, measure: Any) -> None:
    ends = set()
    for seed in range(12):
        batch = ready(grpo(), random_batch(seed=seed, drift=0.6, gaps=True))
        now = BalancedBounds(measure=measure).rho(TokenRatio()(batch), batch, 0.6, 1.2)
        bounds = BalancedBounds(search=search, measure=measure, target=now - 0.004 + 0.01 * seed, low_max=0.87, high_max=1.97,
                                low_step=0.05, high_step=0.1)  # fmt: skip
        log_ratio, mine = TokenRatio()(batch), batch.mask.bool()
        tokens = list(zip(log_ratio.exp()[mine].tolist(), batch.advantage[mine].tolist(), strict=True))
        got = tuple(float(x) for x in bounds(0.4, 0.2, log_ratio, batch))
        assert got == pytest.approx(algorithm_1(tokens, bounds, 0.6, 1.2))
        ends.add(got)
    assert len(ends) > 2


def test_the_search_of_bapo_without_good_or_without_bad_tokens() -> None:
    batch = random_batch()
    good, bad = (batch.replace(advantage=sign * torch.ones_like(batch.mask)) for sign in (1.0, -1.0))
    bounds = BalancedBounds(low_max=0.9, high_max=3.0)
    assert [float(x) for x in bounds(0.4, 0.2, TokenRatio()(good), good)] == pytest.approx([0.6, 1.2])
    assert [float(x) for x in bounds(0.4, 0.2, TokenRatio()(bad), bad)] == pytest.approx([0.9, 3.0])
    found = bapo().surrogate.metrics(TokenRatio()(bad), bad)
    assert float(found["bounds/low"][0, 0]) == pytest.approx(0.9)
    assert float(found["bounds/rho"][0, 0]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_wider_bounds_never_lower_the_share_of_good_gradient(seed: int) -> None:
    batch = ready(grpo(), random_batch(seed=seed, drift=0.6))
    log_ratio, bounds = TokenRatio()(batch), BalancedBounds()
    by_high = [bounds.rho(log_ratio, batch, 0.6, 1.2 + 0.1 * k) for k in range(15)]
    by_low = [bounds.rho(log_ratio, batch, 0.6 + 0.02 * k, 1.2) for k in range(15)]
    assert by_high == sorted(by_high)
    assert by_low == sorted(by_low)
    assert by_high[0] < by_high[-1] or by_low[0] < by_low[-1]


# Credit --------------------------------------------------------------------------------------------------------------


def test_outliers_are_dropped_and_the_others_not_standardised_again() -> None:
    batch = random_batch(groups=(2, 2), lengths=(6, 6, 6, 3))
    advantage = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    advantage[1, 2] = 30.0
    z = SigmaFilter(sigma=3.0).filtered(advantage, batch.mask)
    inside = advantage[batch.mask.bool()]
    wanted = (advantage - inside.mean()) / inside.std(unbiased=False) * batch.mask
    wanted[1, 2] = 0
    same(z, wanted)
    assert not SigmaFilter().filtered(torch.full_like(batch.mask, 0.1), batch.mask).any()


def test_the_reward_to_go_of_stablereinforce_carries_the_penalty_of_each_token() -> None:
    batch = shaped(stablereinforce(kl_coef=0.5), random_batch())
    to_go = SigmaFilter().of(batch)
    for i in range(9):
        left = batch.token_reward[i].flip(-1).cumsum(-1).flip(-1) + batch.reward[i]
        same(to_go[i], left * batch.mask[i])


def test_an_exploding_ratio_has_a_finite_loss_and_no_gradient() -> None:
    recipe = stablereinforce()
    batch = tokens([1.0, 1.1], [-1.0, -1.0])
    far = batch.replace(logp=torch.stack([batch.old_logp[:, 0] + 500, batch.logp[:, 1]], dim=1))
    loss, got = gradients(recipe, far)
    assert float(loss) == pytest.approx((1000 + 1.1) / 2)
    assert got["logp"][0].tolist() == pytest.approx([0.0, 1.1 / 2])


def test_rewards_of_stablereinforce_are_ordered() -> None:
    def reward(correct: float, consistency: float | None, formatted: float) -> float:
        columns = {} if consistency is None else {"consistency": torch.tensor([consistency])}
        one = torch.ones(1)
        batch = make_batch(
            mask=one[:, None], reward=0 * one, correct=correct * one, formatted=formatted * one, **columns
        )
        return float(shaped(stablereinforce(kl_coef=0.0), batch).reward)

    assert [reward(1, 1, 1), reward(1, 0, 1), reward(1, -1, 1), reward(1, None, 0)] == [2.0, 1.5, 1.0, 1.0]
    assert reward(0, 1, 1) == reward(0, -1, 1) == 0.5


def visited(rewards: list[float], history: list[float] | None) -> Batch:
    n = len(rewards)
    row = history or [math.nan] * 3
    return make_batch(
        mask=torch.ones(n, 1, dtype=torch.float64),
        group=torch.zeros(n, dtype=torch.long),
        reward=torch.tensor(rewards, dtype=torch.float64),
        history=torch.tensor([row] * n, dtype=torch.float64),
    )


def test_the_first_visit_has_grpo_s_advantage_and_the_next_one_learns_from_it() -> None:
    first = visited([1.0, 0.0, 0.0, 0.0], None)
    same(SmoothNormalise()(first), Normalise(eps=0.0)(first))
    memory = VisitMoments()(first)[0].tolist()
    assert memory == pytest.approx([1, 0.25, 0.5])
    solved = visited([1.0, 1.0, 1.0, 1.0], memory)
    count, mean, std = VisitMoments()(solved)[0].tolist()
    assert (count, mean) == (2, pytest.approx(0.625))
    assert std**2 == pytest.approx((0.5**2 + 0 + 0.5 * 0.75**2) / 2)
    got = SmoothNormalise()(solved)[:, 0].tolist()
    assert got == pytest.approx([(1 - 0.625) / std / 2] * 4)
    same_again = visited([0.0, 0.0], [5, 0.0, 0.0])
    assert not SmoothNormalise()(same_again).any()


def test_responses_of_dcpo_are_added_up() -> None:
    batch = random_batch().replace(history=torch.full((9, 3), math.nan, dtype=torch.float64))
    (loss, got), recipe = gradients(dcpo_clipping(), ready(dcpo_clipping(), batch)), dcpo_clipping()
    mean_loss, mean = gradients(recipe.replace(aggregate=grpo().aggregate), ready(recipe, batch))
    same(loss, 9 * mean_loss)
    same(got["logp"], 9 * mean["logp"])


# Centred ratios ------------------------------------------------------------------------------------------------------


def test_a_centred_log_ratio_has_the_mean_zero_under_the_old_policy() -> None:
    g = torch.Generator().manual_seed(1)
    old, new = torch.randn(2, 5, generator=g, dtype=torch.float64)
    table, logp = old.log_softmax(-1), new.log_softmax(-1)
    kl = KL_FROM_OLD(new.expand(5, 5), torch.arange(5), {"reference": old.expand(5, 5)})
    batch = make_batch(mask=torch.ones(5, 1), logp=logp[:, None], old_logp=table[:, None])
    batch = batch.with_statistics({KL_FROM_OLD.key: kl[:, None]})
    for scale in (1.0, 0.3):
        log_ratio = CentredRatio(scale=(scale,))(batch)[:, 0]
        same((table.exp() * log_ratio).sum(), torch.zeros((), dtype=torch.float64))
    same((table.exp() * (logp - table)).sum(), -kl[0])


def test_without_a_kl_grpo_guard_is_grpo_and_positions_have_scales_and_weights_of_their_own() -> None:
    still = {KL_FROM_OLD.key: torch.zeros(9, 6, dtype=torch.float64)}
    recipe, plain = grpo_guard(), grpo(kl_coef=0.0)
    batch = ready(recipe, random_batch()).with_statistics(still)
    same(gradients(recipe, batch)[1]["logp"], gradients(plain, batch)[1]["logp"])
    scaled = CentredRatio(scale=(0.5, 2.0))(batch)
    same(scaled, TokenRatio()(batch) * torch.tensor([0.5, 2, 2, 2, 2, 2], dtype=torch.float64))
    assert PositionWeight(weights=(3.0, 1.0))(scaled, batch)[0].tolist() == [3, 1, 1, 1, 1, 1]
    assert grpo_guard(step_weight=(3.0, 1.0)).weight == (PositionWeight(weights=(3.0, 1.0)),)
    assert recipe.weight == ()


def test_the_centred_ratio_of_a_gaussian_step_is_linear_in_its_mean() -> None:
    g = torch.Generator().manual_seed(2)
    old, move, noise = torch.randn(3, 4, 2, 3, generator=g, dtype=torch.float64)
    for std in (torch.tensor([0.4, 0.9], dtype=torch.float64), torch.tensor([0.8, 1.8], dtype=torch.float64)):
        sample = old + std[:, None] * noise

        def step(mean: Tensor, sample: Tensor = sample, std: Tensor = std) -> Tensor:
            log_ratio = ((sample - old) ** 2 - (sample - mean) ** 2).mean(-1) / (2 * std**2)
            return centred(log_ratio, ((mean - old) ** 2).mean(-1) / (2 * std**2), std)

        there, back = step(old + move), step(old - move)
        same(there, -back)
        same(there, (noise * move).mean(-1))


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dual_clip(dual_clip=1.0), ["dual", "greater than 1"]),
        (lambda: dual_clip(high=1.5, dual_clip=2.0), ["dual is 2", "inside the bound 1 + high = 2.5"]),
        (lambda: dhpo(token_weight=1.5), ["weight", "less than or equal to 1"]),
        (lambda: dhpo(mix="geometric"), ["mix"]),
        (lambda: tis(mode="row"), ["mode"]),
        (lambda: tis(weight_high=0.0), ["high", "greater than 0"]),
        (lambda: bapo(low_start=1.2), ["low", "greater than or equal to 0"]),
        (lambda: bapo(high_step=0.0), ["high_step"]),
        (lambda: bapo(measure="share"), ["measure"]),
        (lambda: hapo_heterogeneous(entropy_pivot=2.0), ["pivot"]),
        (lambda: hapo_heterogeneous(adv_beta=-1.0), ["beta"]),
        (lambda: stablereinforce(ratio_min=0.0), ["ratio_min", "greater than 0"]),
        (lambda: gppo_klear(beta_low=-1.0), ["beta_low"]),
        (lambda: grpo_guard(scale=()), ["scale", "at least 1"]),
        (lambda: grpo_guard(step_weight=(1.0, -1.0)), ["weights"]),
        (lambda: dcpo_clipping().replace(memory=None), ["'history'", "set memory"]),
        (lambda: dcpo_clipping().replace(ratio=SequenceRatio()), ["works token by token", "PPOClip"]),
        (lambda: hapo_heterogeneous().replace(ratio=SequenceRatio()), ["works token by token"]),
        (lambda: gmpo().replace(ratio=SequenceRatio()), ["works token by token", "GeometricMeanClip"]),
        (lambda: dhpo().replace(ratio=SequenceRatio()), ["works token by token", "HybridClip"]),
    ],
)  # fmt: skip
def test_fields_out_of_range_and_parts_that_contradict_each_other(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises((ValueError, ValidationError)) as refused:
        make()
    for word in words:
        assert word in str(refused.value)


def test_parts_say_what_their_bounds_need() -> None:
    assert PPOClip(bounds=EntropyBounds()).needs == {"entropy"}
    assert PPOClip(bounds=FixedBounds()).needs == frozenset()
    assert (PPOClip().unit, PPOClip(bounds=ProbabilityBounds()).unit, PPOClip(bounds=BalancedBounds()).unit) == (
        "token", "token", "batch",
    )  # fmt: skip
    assert hapo_heterogeneous().unit == bapo().unit == "batch"
    assert SamplerMismatch().unit == "token"
    assert SamplerMismatch(mode="geo_mask").unit == "row"
    assert grpo_guard().roles == {"reference"}
    assert LogProb().needs == frozenset()
