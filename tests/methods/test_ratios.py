"""Methods that change the ratio, its bounds, or what happens outside them: limits, and facts of their papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from policyopt.methods.clip.bapo import BalancedBounds, bapo
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo
from policyopt.methods.clip.dcpo_clipping import ProbabilityBounds, dcpo_clipping
from policyopt.methods.clip.dual_clip import dual_clip
from policyopt.methods.clip.gppo_klear import gppo_klear
from policyopt.methods.clip.hapo_heterogeneous import EntropyBounds, entropy_scale, hapo_heterogeneous
from policyopt.methods.clip.stablereinforce import stablereinforce
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.ratio.dhpo import dhpo
from policyopt.methods.ratio.gmpo import gmpo
from policyopt.methods.ratio.grpo_guard import grpo_guard
from policyopt.methods.ratio.gspo import gspo
from policyopt.methods.ratio.minirl import minirl
from policyopt.methods.ratio.minpro import minpro
from policyopt.methods.ratio.tis import tis
from policyopt.parts import FixedBounds, LogProb, Normalise, PPOClip, SamplerMismatch, SequenceRatio, TokenRatio
from policyopt.parts.weight.mismatch import Mode
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import gradients, on_policy, random_batch, ready
from tests.methods.shared_ratios import same, same_sampler, token_gradient, tokens


def assert_equal_objectives(one: Recipe, other: Recipe, batch: Batch) -> None:
    """The same loss and the same gradient on a batch as it was drawn."""
    (loss, got), (wanted_loss, wanted) = (gradients(r, ready(r, batch)) for r in (one, other))
    same(loss, wanted_loss)
    for name in wanted:
        same(got[name], wanted[name])
    assert got["logp"].any()


# What each method becomes in its limit -------------------------------------------------------------------------------


def one_token(batch: Batch) -> Batch:
    mask = torch.zeros_like(batch.mask)
    mask[:, 0] = 1
    return batch.replace(mask=mask)


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
