"""What the sources of the methods state: unbiasedness, reductions to the parent, and who gets which gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.aggregation.luspo import luspo
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.methods.baseline.remax import remax
from policyopt.methods.baseline.rloo import rloo
from policyopt.methods.clip.cispo import cispo
from policyopt.methods.clip.dapo import dapo, overlong
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.group.grpo import StepNormalise, grpo
from policyopt.methods.ratio.gspo import gspo
from policyopt.objective import shaped
from policyopt.parts import (
    LogProb,
    Normalise,
    PPOClip,
    RatioTimesAdvantage,
    RolloutBaseline,
    SeqMeanTokenMean,
    SeqMeanTokenSum,
    TokenMean,
    TruncatedRatio,
)
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import BUDGET, TinyPolicy, dlogp, gradients, on_policy, random_batch, ready

same = torch.testing.assert_close


# Unbiased or not, by summing over everything that can be drawn -------------------------------------------------------


@pytest.fixture(params=[0, 1])
def tiny(request: Any) -> TinyPolicy:
    return TinyPolicy(request.param)


def mean_reward(tiny: TinyPolicy) -> Tensor:
    return (tiny.log_probability().exp() * tiny.reward).sum()


@pytest.mark.parametrize(
    "recipe",
    [
        reinforce(baseline="none"),
        reinforce(baseline="constant", constant=-3.7),
        reinforce(baseline="none").replace(surrogate=RatioTimesAdvantage()),
        rloo(kl_coef=0.0),
        remax(kl_coef=0.0).replace(aggregate=SeqMeanTokenSum()),
    ],
    ids=["no baseline", "constant", "as a ratio", "leave one out", "greedy response"],
)
def test_the_expected_gradient_is_that_of_the_mean_reward(recipe: Recipe, tiny: TinyPolicy) -> None:
    same(tiny.expected_gradient(recipe, 2), -tiny.gradient(mean_reward(tiny)))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("baseline", ["batch-mean", "group-mean"])
def test_a_mean_that_contains_the_row_itself_shrinks_the_gradient(baseline: Any, n: int, tiny: TinyPolicy) -> None:
    recipe = reinforce(baseline=baseline, group_size=n)
    same(tiny.expected_gradient(recipe, n), -(n - 1) / n * tiny.gradient(mean_reward(tiny)))


def test_averaging_over_tokens_biases_the_gradient_where_lengths_differ(tiny: TinyPolicy) -> None:
    biased = tiny.expected_gradient(reinforce(baseline="none").replace(aggregate=SeqMeanTokenMean()), 2)
    assert (biased + tiny.gradient(mean_reward(tiny))).abs().max() > 1e-3


def test_a_kl_in_the_reward_is_the_kl_of_the_policy_to_the_reference(tiny: TinyPolicy) -> None:
    logp, ref = tiny.log_probability(), tiny.logp(tiny.reference).sum(-1)
    value = (logp.exp() * (tiny.reward - 0.3 * (logp - ref))).sum()
    same(tiny.expected_gradient(rloo(kl_coef=0.3), 2), -tiny.gradient(value))


@pytest.mark.parametrize("bounded", [False, True])
def test_a_detached_ratio_makes_old_samples_unbiased_until_it_is_truncated(bounded: bool) -> None:
    """Responses of one token, drawn from an older policy."""
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(6, generator=g, dtype=torch.float64, requires_grad=True)
    logp, reward = theta.log_softmax(-1), torch.randn(6, generator=g, dtype=torch.float64)
    old = (theta.detach() + torch.randn(6, generator=g, dtype=torch.float64)).log_softmax(-1)
    batch = make_batch(mask=torch.ones(6, 1), reward=reward, old_logp=old[:, None], logp=logp[:, None])
    recipe = reinforce(baseline="none").replace(weight=(TruncatedRatio(low=None, high=0.1 if bounded else None),))
    per_row = 6 * gradients(recipe, ready(recipe, batch.replace(logp=logp[:, None].detach())))[1]["logp"][:, 0]
    got = torch.autograd.grad(logp, theta, per_row * old.exp(), retain_graph=True)[0]
    wanted = -torch.autograd.grad((logp.exp() * reward).sum(), theta)[0]
    assert torch.allclose(got, wanted) != bounded


# REINFORCE and its baselines -----------------------------------------------------------------------------------------


def test_a_row_of_twice_the_length_has_twice_the_gradient_and_one_without_advantage_none() -> None:
    batch = random_batch(groups=(3,), lengths=(2, 4, 5)).replace(reward=torch.tensor([1.0, 1.0, 0.0]))
    row = dlogp(reinforce(baseline="none"), batch).sum(-1)
    same(row[1], 2 * row[0])
    assert row[2] == 0


def test_a_constant_on_all_rewards_changes_nothing_with_a_mean_baseline() -> None:
    batch = random_batch()
    recipe = reinforce(baseline="batch-mean")
    same(dlogp(recipe, batch.replace(reward=batch.reward + 5)), dlogp(recipe, batch))


@pytest.mark.parametrize(
    "recipe", [grpo(kl_coef=0.0), dr_grpo(), gspo(), dapo().replace(shape=())], ids=lambda r: r.name
)
def test_on_policy_a_clipped_ratio_has_the_gradient_of_reinforce(recipe: Recipe) -> None:
    batch = on_policy(random_batch(gaps=True))
    score = reinforce(baseline="none", group_size=2).replace(advantage=recipe.advantage, aggregate=recipe.aggregate)
    same(dlogp(recipe, batch), dlogp(score, batch))
    ratio, plain = (gradients(r, ready(r, batch))[0] for r in (recipe, score))
    assert not torch.allclose(ratio, plain)  # the same gradient, not the same value


def test_leave_one_out_sums_to_zero_and_for_two_is_their_difference() -> None:
    batch = random_batch(groups=(4, 2, 3))
    advantage = ready(rloo(), batch).advantage[:, 0]
    reward = shaped(rloo(), batch).total_reward()
    for g in range(3):
        assert abs(float(advantage[batch.group == g].sum())) < 1e-12
    same(advantage[4:6], torch.stack([reward[4] - reward[5], reward[5] - reward[4]]))


def test_leave_one_out_is_dr_grpo_with_another_learning_rate() -> None:
    batch = on_policy(random_batch(groups=(4, 4)))
    same(dlogp(rloo(kl_coef=0.0), batch), dlogp(dr_grpo(loss_norm=10), batch) * 10 * 4 / 3)


def test_the_greedy_response_itself_has_no_gradient_and_a_bonus_for_the_prompt_none() -> None:
    batch = random_batch()
    recipe = remax(kl_coef=0.0)
    assert (dlogp(recipe, batch.replace(reward=batch.baseline_reward)) == 0).all()
    bonus = batch.group * 0.7
    moved = batch.replace(reward=batch.reward + bonus, baseline_reward=batch.baseline_reward + bonus)
    same(dlogp(recipe, moved), dlogp(recipe, batch))


def test_remax_discounts_even_the_last_token_and_counts_a_kl_where_it_falls() -> None:
    batch = random_batch(groups=(1,), lengths=(3,)).replace(
        reward=torch.tensor([9.0]), baseline_reward=torch.tensor([1.0])
    )
    recipe = remax(gamma=0.9, kl_coef=0.1, reward_clip=5.0)
    kl = (batch.old_logp - batch.ref_logp)[0]
    wanted = torch.tensor([5 * 0.9**3, 5 * 0.9**2, 5 * 0.9, 0, 0, 0]) - 0.1 * kl * batch.mask[0]
    same(ready(recipe, batch).advantage[0], wanted)
    for clip, gain in ((None, 8.0), (6.0, 6.0)):
        plain = remax(kl_coef=0.0, reward_clip=clip)
        same(ready(plain, batch).advantage[0], gain * batch.mask[0])
        turned = batch.replace(reward=batch.baseline_reward, baseline_reward=batch.reward)
        same(ready(plain, turned).advantage[0], -gain * batch.mask[0])
    assert RolloutBaseline().gamma == 1.0  # the paper's


# PPO and GRPO --------------------------------------------------------------------------------------------------------


def test_grpo_before_the_first_update_is_its_two_terms() -> None:
    batch = on_policy(random_batch())
    recipe = grpo(kl_coef=0.04)
    advantage = ready(recipe, batch).advantage
    k1 = batch.logp - batch.ref_logp
    wanted = (-advantage + 0.04 * (1 - (-k1).exp())) * batch.mask / batch.mask.sum(-1, keepdim=True) / 9
    same(dlogp(recipe, batch), wanted)
    same(dlogp(recipe.set("surrogate.low", 0.0).set("surrogate.high", 0.0), batch), wanted)  # no clip before a step


def test_grpo_with_binary_rewards() -> None:
    right = torch.tensor([1.0, 1, 0, 1, 0, 1, 1, 1], dtype=torch.float64)
    batch = make_batch(mask=torch.ones(8, 1), reward=right, group=torch.zeros(8))
    p = float(right.mean())
    wanted = right * math.sqrt((1 - p) / p) - (1 - right) * math.sqrt(p / (1 - p))
    same(Normalise(ddof=0, eps=0.0)(batch)[:, 0], wanted)


@pytest.mark.parametrize("make", [grpo, gspo, luspo, cispo])
def test_group_normalised_methods_ignore_shift_and_scale_of_rewards(make: Any) -> None:
    batch, recipe = random_batch(groups=(4, 3, 2), drift=1e-4), make().set("advantage.eps", 0.0)
    scale = torch.tensor([2.0, 0.3, 5.0], dtype=torch.float64)[batch.group]
    same(dlogp(recipe, batch.replace(reward=batch.reward * scale + batch.group)), dlogp(recipe, batch))


@pytest.mark.parametrize("make", [grpo, dr_grpo, gspo, luspo, cispo, rloo])
def test_groups_without_signal_have_no_gradient(make: Any) -> None:
    recipe = make(kl_coef=0.0) if "kl_coef" in make.hyperparameters else make()
    batch = random_batch(dtype=torch.float32)
    flat = batch.replace(reward=torch.where(batch.group == 1, 0.1, batch.reward))
    rows = dlogp(recipe, flat).abs().sum(-1)
    assert (rows[batch.group == 1] == 0).all()
    assert (dlogp(recipe, on_policy(flat)).abs().sum(-1)[batch.group != 1] > 0).all()


def test_grpo_weighs_responses_the_same_and_dapo_tokens() -> None:
    batch = on_policy(random_batch(groups=(2,), lengths=(2, 6)))
    responses = dlogp(grpo(kl_coef=0.0), batch).sum(-1).abs()
    same(responses[0], responses[1])
    tokens = dlogp(dapo().replace(shape=()), batch).abs()
    same(tokens[1], tokens[0, 0].expand(6))


def test_one_step_that_ends_with_the_response_is_outcome_supervision() -> None:
    batch = random_batch()
    last = batch.mask.sum(-1, keepdim=True).long() - 1
    steps = batch.replace(step_reward=batch.reward[:, None], step_end=last)
    same(StepNormalise()(steps), Normalise()(batch))


@pytest.mark.parametrize(
    ("advantage", "ratio", "flat"), [(1, 1.5, True), (1, 0.5, False), (-1, 0.5, True), (-1, 9.0, False)]
)
def test_ppo_is_flat_exactly_beyond_the_bound_that_matters(advantage: float, ratio: float, flat: bool) -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    batch = make_batch(mask=one, advantage=advantage * one, old_logp=-one, logp=math.log(ratio) - one)
    recipe = grpo(kl_coef=0.0)
    gradient = gradients(recipe, batch)[1]["logp"]
    same(gradient, torch.zeros_like(one) if flat else -advantage * ratio * one)


def test_ppo_has_one_more_term_for_the_critic_and_one_for_entropy() -> None:
    batch = random_batch()
    recipe = ppo(vf_coef=0.5, entropy_coef=0.02)
    loss, got = gradients(recipe, ready(recipe, batch))
    tokens = batch.mask.sum()
    same(got["entropy"], -0.02 * batch.mask / tokens)
    inside = ((batch.value - batch.old_value).abs() < 0.2) & batch.mask.bool()
    error = batch.value - ready(recipe, batch).returns
    same(got["value"][inside], (0.5 * error / tokens)[inside])
    bootstrapped = ppo(gamma=0.9, lam=0.5)
    assert (bootstrapped.critic.gamma, bootstrapped.critic.lam) == (0.9, 0.5)  # type: ignore[union-attr]
    policy = ppo(vf_coef=0.0)
    same(got["logp"], gradients(policy, ready(policy, batch))[1]["logp"])
    assert loss.isfinite()


# Lengths -------------------------------------------------------------------------------------------------------------


def test_dr_grpo_divides_every_token_by_the_same_constant() -> None:
    batch = on_policy(random_batch(groups=(2, 3), lengths=(1, 6, 2, 4, 3)))
    recipe = dr_grpo()
    advantage = ready(recipe, batch).advantage
    same(dlogp(recipe, batch), -advantage / 5 / BUDGET)
    same(dlogp(dr_grpo(loss_norm=4.0), batch), dlogp(recipe, batch) * BUDGET / 4)
    same(dlogp(recipe, batch.replace(reward=3 * batch.reward)), 3 * dlogp(recipe, batch))


def test_dr_grpo_is_grpo_without_its_two_divisions() -> None:
    batch = random_batch(lengths=(4,) * 9)
    parent = grpo(kl_coef=0.0).set("advantage.scale", "none")
    same(dlogp(dr_grpo(loss_norm=10.0), batch), dlogp(parent, batch) * 4 / 10)


def test_dapo_without_its_four_repairs_is_grpo() -> None:
    batch = random_batch(lengths=(4,) * 9)
    bare = dapo(high=0.2).replace(shape=(), filter=())
    same(dlogp(bare, batch), dlogp(grpo(kl_coef=0.0), batch))
    assert not torch.allclose(dlogp(dapo(high=0.28).replace(shape=()), batch), dlogp(bare, batch))


def test_the_overlong_penalty_is_a_ramp_over_the_last_share_of_the_budget() -> None:
    length = torch.arange(0, 131, dtype=torch.float64)
    budget = torch.full((131,), 100)
    batch = make_batch(mask=torch.zeros(131, 1), reward=torch.zeros(131).double(), true_length=length, budget=budget)
    penalty = overlong(share=0.2)(batch).reward
    assert (penalty[:81] == 0).all()
    assert (penalty[100:] == -1).all()
    same(penalty[80:101].diff(), torch.full((20,), -0.05, dtype=torch.float64))
    same(replace(overlong(share=0.2), coef=3.0)(batch).reward, 3 * penalty)


def test_dapo_rewards_right_and_wrong_with_one_and_less_one() -> None:
    batch = random_batch(lengths=(1,) * 9)
    same(shaped(dapo(), batch).reward, 2 * batch.correct - 1)


# Sequences -----------------------------------------------------------------------------------------------------------


def wide(make: Any, **given: Any) -> Recipe:
    """With bounds that clip some of the sequences and not others."""
    return make(low=0.08, high=0.1, **given)


def test_gspo_on_responses_of_one_token_is_grpo() -> None:
    batch = random_batch(lengths=(1,) * 9)
    same(dlogp(wide(gspo), batch), dlogp(wide(grpo, kl_coef=0.0), batch))


def test_gspo_gives_all_tokens_of_a_row_the_same_gradient_and_a_clipped_row_none() -> None:
    batch = random_batch()
    recipe = wide(gspo)
    done = ready(recipe, batch)
    gradient = gradients(recipe, done)[1]["logp"]
    ratio = recipe.ratio(batch).exp()[:, 0]
    advantage = done.advantage[:, 0]
    clipped = ((advantage > 0) & (ratio > 1.1)) | ((advantage < 0) & (ratio < 0.92))
    assert clipped.any()
    assert not clipped.all()
    total = torch.where(clipped, 0.0, -ratio * advantage / 9)  # whatever the length
    same(gradient, total[:, None] * batch.mask / batch.mask.sum(-1, keepdim=True))


def test_gspo_sees_only_the_mean_of_a_rows_log_ratios() -> None:
    batch = random_batch(lengths=(6,) * 9)
    turned = batch.replace(logp=batch.old_logp + (batch.logp - batch.old_logp).roll(2, dims=1))
    same(dlogp(wide(gspo), turned), dlogp(wide(gspo), batch))


def test_the_token_form_of_gspo_is_gspo_where_a_rows_advantages_are_equal() -> None:
    batch = random_batch(gaps=True)
    loss, got = gradients(wide(gspo, level="token"), ready(gspo(), batch))
    wanted_loss, wanted = gradients(wide(gspo), ready(gspo(), batch))
    same(loss, wanted_loss)
    same(got["logp"], wanted["logp"])


def test_luspo_is_gspo_times_the_length() -> None:
    batch = random_batch(lengths=(4,) * 9)
    for pair in zip(
        gradients(wide(luspo), ready(luspo(), batch)), gradients(wide(gspo), ready(gspo(), batch)), strict=True
    ):
        got, wanted = (x if isinstance(x, Tensor) else x["logp"] for x in pair)
        same(got, 4 * wanted)


def test_luspo_treats_tokens_of_long_and_short_responses_alike() -> None:
    def gradient(recipe: Recipe) -> Tensor:
        batch = random_batch(groups=(2, 2), lengths=(2, 6, 2, 6)).replace(reward=torch.tensor([1.0, 0, 0, 1]).double())
        return dlogp(recipe, batch.replace(logp=batch.old_logp + 0.01))

    per_token = gradient(luspo(low=0.1, high=0.1))
    same(per_token[0, 0], per_token[3, 5])
    assert float(gradient(gspo(low=0.1, high=0.1))[0, 0] / gradient(gspo(low=0.1, high=0.1))[3, 0]) == pytest.approx(3)


def test_luspo_on_policy_is_reinforce_with_token_sums() -> None:
    batch = on_policy(random_batch())
    done = ready(luspo(), batch)
    loss, got = gradients(luspo(), done)
    same(got["logp"], -done.advantage / 9)
    same(loss, -(done.advantage[:, 0] * batch.mask.sum(-1)).sum() / 9)


# CISPO ---------------------------------------------------------------------------------------------------------------


def test_cispo_on_policy_is_reinforce_with_a_token_mean() -> None:
    batch = on_policy(random_batch())
    score = reinforce(baseline="none", group_size=2).replace(advantage=Normalise(), aggregate=TokenMean())
    same(dlogp(cispo(), batch), dlogp(score, batch))


def ppo_of_cispo(**bounds: float) -> Recipe:
    return cispo().replace(weight=(), surrogate=PPOClip(**bounds))


def test_cispo_silences_no_token_and_bounds_every_one() -> None:
    batch = random_batch(drift=2.0)
    recipe = cispo(high=0.2)
    advantage = ready(recipe, batch).advantage
    gradient, mine = dlogp(recipe, batch).abs(), batch.mask.bool()
    assert (gradient[mine] > 0).all()
    assert (gradient <= 1.2 * advantage.abs() / batch.mask.sum() * (1 + 1e-12)).all()
    assert (dlogp(ppo_of_cispo(low=0.2, high=0.2), batch)[mine] == 0).any()


def test_cispo_and_ppo_agree_inside_the_window() -> None:
    batch = random_batch()
    ratio = (batch.logp - batch.old_logp).exp()
    inside = (ratio > 0.8) & (ratio < 1.2) & batch.mask.bool()
    mine, parent = (dlogp(r, batch) for r in (cispo(low=0.2, high=0.2), ppo_of_cispo(low=0.2, high=0.2)))
    same(mine[inside], parent[inside])
    assert not torch.allclose(mine, parent)


def test_cispo_with_a_score_function_and_no_truncation_is_the_ratio_surrogate() -> None:
    batch = random_batch()
    free = cispo(high=None)
    assert isinstance(free.surrogate, LogProb)
    same(dlogp(free, batch), dlogp(free.replace(weight=(), surrogate=RatioTimesAdvantage()), batch))


def test_a_batch_keeps_its_padding_out_of_every_length() -> None:
    batch: Batch = random_batch(gaps=True)
    assert batch.length().tolist() == batch.mask.sum(-1).tolist()
    assert (batch.terminal().sum(-1) == 1).all()
    assert batch.replace(true_length=torch.arange(9)).length().tolist() == list(range(9))
