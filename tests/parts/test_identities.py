"""Parts that say the same thing in two ways: where both stand, what they have in common holds to the last bit that
float64 gives; where one went, the other still has its formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policyopt.groups import group_mean, group_std, whiten
from policyopt.methods.clip.dapo import overlong
from policyopt.methods.credit.pass_at_k import PassAtK
from policyopt.methods.group.grpo import grpo
from policyopt.methods.offpolicy.vespo import TrajectoryRatio
from policyopt.parts import (
    KL,
    ClipMask,
    EdgeAdvantage,
    FromProgram,
    Judged,
    Likelihood,
    LogProb,
    Normalise,
    PPOClip,
    Proximal,
    RatioTimesAdvantage,
    RowScore,
    RowSelector,
    SequenceRatio,
    TokenMean,
    TruncatedRatio,
)
from policyopt.parts.regularizer.proximal import Deviation, deviation
from policyopt.parts.select.rows import picked
from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.batches import gradients, on_policy, random_batch, ready

SEEDS = pytest.mark.parametrize("seed", range(3))
PLAIN = grpo(None, None, kl_coef=0.0)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def batches(seed: int) -> list[Batch]:
    """Fresh and stale rows, with text of others and without."""
    return [
        random_batch(seed), random_batch(seed, gaps=True), random_batch(seed, drift=1.0), on_policy(random_batch(seed)),
    ]  # fmt: skip


def slopes(recipe: Recipe, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss and its gradient with respect to ``logp``."""
    loss, found = gradients(recipe, ready(recipe, batch))
    return loss, found["logp"]


# Ratios and surrogates -----------------------------------------------------------------------------------------------


@SEEDS
def test_a_sequence_ratio_is_the_score_of_a_row_on_its_tokens(seed: int) -> None:
    for batch in batches(seed):
        score = {r: RowScore(against="old", reduce=r)(batch)[:, None].expand_as(batch.mask) for r in ("mean", "sum")}
        same(SequenceRatio()(batch), score["mean"])
        same(TrajectoryRatio()(batch), score["sum"])
        log_ratio = (batch.logp - batch.old_logp) * batch.mask
        same(score["mean"][:, 0], log_ratio.sum(-1) / batch.mask.sum(-1))
    far = batch.replace(logp=batch.old_logp - 30)
    assert (TrajectoryRatio()(far) > RowScore(against="old")(far)[:, None]).all(), (
        "but for the bound of 20 on each token"
    )


@SEEDS
@pytest.mark.parametrize("bounds", [(0.2, 0.2), (0.1, 0.4), (None, 0.3)])
def test_the_mask_of_the_clip_leaves_the_gradient_of_the_clip(seed: int, bounds: tuple[float | None, float]) -> None:
    low, high = bounds
    for batch in batches(seed):
        clip, masked = (
            PLAIN.replace(surrogate=PPOClip(low=low, high=high)),
            PLAIN.replace(surrogate=RatioTimesAdvantage(), weight=(ClipMask(low=low, high=high),)),
        )
        same(slopes(clip, batch)[1], slopes(masked, batch)[1])


@SEEDS
def test_ratio_times_advantage_is_the_score_function_under_the_ratio_as_a_weight(seed: int) -> None:
    for batch in batches(seed):
        importance = PLAIN.replace(surrogate=RatioTimesAdvantage())
        score = PLAIN.replace(surrogate=LogProb(), weight=(TruncatedRatio(low=None, high=None),))
        same(slopes(importance, batch)[1], slopes(score, batch)[1])


# Regularisers --------------------------------------------------------------------------------------------------------


@SEEDS
@pytest.mark.parametrize("kind", ["chi2", "kl-old-new", "k3"])
def test_a_mean_deviation_is_the_token_mean_of_the_deviations(seed: int, kind: Deviation) -> None:
    for batch in batches(seed):
        each, whole = Proximal(coef=3.0, deviation=kind), Proximal(coef=3.0, deviation=kind, mean=True)
        base = PLAIN.replace(aggregate=TokenMean())
        for a, b in zip(*(slopes(base.replace(regularizers=(p,)), batch) for p in (each, whole)), strict=True):
            same(a, b)
        wanted = 3 * (deviation(batch.logp - batch.old_logp, kind) * batch.mask).sum() / batch.mask.sum()
        same(whole(batch), wanted)


# Advantages ----------------------------------------------------------------------------------------------------------


@SEEDS
def test_edges_without_a_tree_are_rewards_against_the_group(seed: int) -> None:
    batch = random_batch(seed).replace(node=None, node_end=None, node_value=None)
    for values in ("leaves", "children", "continuations"):
        same(EdgeAdvantage(values=values)(batch), Normalise(centre="group", scale="none")(batch))  # type: ignore[arg-type]


@SEEDS
def test_pass_at_one_is_the_normalised_reward(seed: int) -> None:
    batch = random_batch(seed)
    batch = batch.replace(reward=batch.correct)
    same(PassAtK(k=1)(batch), Normalise(ddof=0)(batch))


@SEEDS
def test_all_rows_can_be_measured_by_some(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 3, 5, 1))
    source = torch.tensor([0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0])
    found = Normalise(ddof=0, rows=FromProgram())(batch.replace(origin=source))[:, 0]
    reward = batch.total_reward()
    for g in range(4):
        rows = batch.group == g
        seen = reward[rows & (source == 0)]
        wanted = (reward[rows] - seen.mean()) / (seen.std(correction=0) + 1e-6) if len(seen) else 0 * reward[rows]
        same(found[rows], wanted)
    for part in (Normalise(), Normalise(centre="leave-one-out", scale="batch"), Normalise(whiten="token")):
        every = part.__class__(**{f: getattr(part, f) for f in ("centre", "scale", "whiten")}, rows=FromProgram())
        same(every(batch), part(batch))


@SEEDS
def test_no_statistic_sees_a_row_that_is_left_out(seed: int) -> None:
    batch = random_batch(seed, groups=(4, 4)).replace(origin=torch.tensor([0, 0, 0, 1, 0, 0, 1, 1]))
    other = batch.replace(reward=batch.reward + 9 * (batch.origin == 1))
    for how in ({"centre": "leave-one-out"}, {"centre": "batch", "scale": "batch"}, {"spread": "mean"}):
        part = Normalise(rows=FromProgram(), **how)  # type: ignore[arg-type]
        same(part(batch)[batch.origin == 0], part(other)[batch.origin == 0])
        same(part(batch)[batch.origin == 0], Normalise(**how)(batch[batch.origin == 0]))  # type: ignore[arg-type]


# Rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, Judged(), Judged(right=False), FromProgram(), FromProgram(main=False)])
def test_a_penalty_on_some_rows_is_the_penalty_where_they_are(rows: RowSelector | None) -> None:
    batch = random_batch().replace(origin=torch.tensor([0, 1, 0, 0, 1, 0, 1, 1, 0]))
    chosen = picked(rows, batch)
    assert chosen.tolist() == (batch.correct * 0 + 1 if rows is None else rows(batch).double()).tolist()
    same(KL(rows=rows)(batch), KL()(batch) * chosen[:, None])
    weight = batch.mask * chosen[:, None]
    same(Likelihood(rows=rows)(batch), -0.1 * (weight * batch.logp).sum() / weight.sum())
    assert KL(rows=rows).needs == {"ref_logp", *(rows.needs if rows else ())}
    assert Likelihood(rows=rows).needs == (rows.needs if rows else frozenset())


def test_a_row_selector_is_a_filter_too() -> None:
    batch = random_batch()
    recipe = PLAIN.replace(filter=(Judged(),))
    assert recipe.filter[0](batch).tolist() == (batch.correct > 0.5).tolist()


# Lengths -------------------------------------------------------------------------------------------------------------


@SEEDS
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_overlong_penalty_is_a_late_reward_for_length(seed: int, share: float) -> None:
    batch = random_batch(seed)
    budget = batch.budget.double()
    span = share * budget
    wanted = batch.reward + 2 * ((budget - span - batch.length()) / span).clamp(-1, 0)
    same(replace(overlong(share), coef=2.0)(batch).reward, wanted)
    assert not overlong().needs


# Whitening -----------------------------------------------------------------------------------------------------------


@SEEDS
def test_whitening_centres_and_scales_what_counts(seed: int) -> None:
    batch = random_batch(seed)
    x, mask = batch.logp, batch.mask
    inside = x[mask.bool()]
    same(whiten(x, weight=mask)[mask.bool()], (inside - inside.mean()) / inside.std(correction=0))
    same(whiten(x, weight=mask, ddof=1, eps=0.3)[mask.bool()], (inside - inside.mean()) / (inside.std() + 0.3))
    same(
        whiten(x, weight=mask, variance_eps=0.3)[mask.bool()],
        (inside - inside.mean()) / (inside.var(correction=0) + 0.3) ** 0.5,
    )
    same(whiten(x, weight=mask, least=9.0)[mask.bool()], (inside - inside.mean()) / 3)
    spoilt = torch.where(mask.bool(), x, torch.nan)
    same(whiten(spoilt, weight=mask)[mask.bool()], whiten(x, weight=mask)[mask.bool()])
    count = torch.tensor([1.0, 2, 3, 1, 1, 2, 4, 0, 1]).double()
    again = [batch.reward[i] for i in range(9) for _ in range(int(count[i])) if batch.group[i] == 0]
    same(group_mean(batch.reward, batch.group, count)[0], torch.stack(again).mean())
    same(group_std(batch.reward, batch.group, 1, count)[0], torch.stack(again).std())


def test_equal_numbers_are_whitened_to_nothing() -> None:
    x = torch.full((7,), 0.1).double()
    for group in (None, torch.tensor([0, 0, 0, 1, 1, 2, 2])):
        assert not whiten(x, group, least=1e-300).any()
        assert not whiten(x, group, torch.tensor([1.0, 2, 3, 0, 0, 1, 5]).double(), least=1e-300)[:3].any()
    assert whiten(torch.zeros(0)).shape == (0,)
    assert not group_mean(x, None, torch.zeros(7).double()).any(), "0 where nothing counts"


def test_a_whitened_score_has_its_gradient() -> None:
    x = random_batch().reward.requires_grad_()
    group = random_batch().group
    assert torch.autograd.gradcheck(lambda x: whiten(x, group, ddof=1, eps=1e-3, least=1e-4), x)
    assert torch.autograd.gradcheck(lambda x: whiten(x, weight=torch.arange(9).double(), variance_eps=1e-3), x)
