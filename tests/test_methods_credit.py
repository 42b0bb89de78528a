"""Methods that change credit, reward or sampling: what each comes to in its limits, and what a wrong one would not do."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from policyopt.control import Schedule
from policyopt.data import load_task
from policyopt.data.prior import PRIORS, with_prior
from policyopt.errors import UserError
from policyopt.groups import group_rank
from policyopt.items import Example, JudgeSpec, Task, Verdict, user
from policyopt.judging.judges import answer_error, check_judge, make_judge
from policyopt.methods.aggregation.dr_grpo import dr_grpo
from policyopt.methods.credit.lite_ppo import lite_ppo
from policyopt.methods.credit.maxrl import maxrl
from policyopt.methods.credit.pass_at_k import MaxAtK, PassAtK, pass_at_k
from policyopt.methods.credit.reinforce_plus_plus import reinforce_plus_plus
from policyopt.methods.critic.ppo import ppo
from policyopt.methods.critic.t_ppo import t_ppo
from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.open_rs import open_rs
from policyopt.methods.reward.ppe import ppe
from policyopt.methods.reward.rmt import TierWeight, rmt
from policyopt.methods.reward.unlikeliness import RankDiscount, unlikeliness
from policyopt.methods.sampling.dars import MoreForHard, dars
from policyopt.methods.sampling.pf_ppo import RankWeight, pf_ppo, weighted_r2
from policyopt.methods.sampling.reinforce_ada import UntilMixed, reinforce_ada
from policyopt.objective import kept, shaped
from policyopt.parts import ClippedValueLoss, Correctness, LengthReward, MixedOutcomes, Normalise, TokenMean
from policyopt.parts.advantage.gae import GAE
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from policyopt.sources.program import Response
from policyopt.steering import States, control
from policyopt.training.rows import with_baseline
from tests.asking import ask
from tests.batches import dlogp, gradients, random_batch, ready

EQUAL_LENGTHS = (4,) * 9


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Two recipes have the same loss and gradient on a batch."""
    (loss, got), (other, wanted) = gradients(a, ready(a, batch)), gradients(b, ready(b, batch))
    torch.testing.assert_close(loss, other, rtol=1e-12, atol=1e-15)
    for name in got:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-12, atol=1e-15)


def outcomes(rewards: Sequence[float], groups: Sequence[int] | None = None) -> Batch:
    """One token per response."""
    reward = torch.tensor(rewards, dtype=torch.float64)
    sizes = torch.tensor([len(rewards)] if groups is None else groups)
    group = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    return make_batch(mask=torch.ones(len(rewards), 1, dtype=torch.float64), reward=reward, correct=reward, group=group)


def expected_gradient(credit: Callable[[Batch], Tensor], p: float, n: int) -> float:
    """Sum over all outcomes of n Bernoulli draws: probability times sum of credit [N] and score, over dp."""
    total = 0.0
    for draws in itertools.product((0.0, 1.0), repeat=n):
        chance = math.prod(p if x else 1 - p for x in draws)
        score = torch.tensor([1 - p if x else -p for x in draws], dtype=torch.float64)
        total += chance * float((credit(outcomes(draws)) * score).sum())
    return total / (p * (1 - p))


# MaxRL, Lite PPO, REINFORCE++ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.45, 0.9])
def test_maxrl_has_the_gradient_of_the_truncated_log_likelihood(p: float) -> None:
    advantage = maxrl(eps=0.0).advantage
    got = expected_gradient(lambda batch: advantage(batch)[:, 0] / 5, p, 5)
    assert got == pytest.approx((1 - (1 - p) ** 4) / p, rel=1e-12)


def test_maxrl_divides_by_the_mean_of_the_group() -> None:
    advantage = maxrl(eps=0.0).advantage
    hard, easy = advantage(outcomes([1, 0, 0, 0]))[:, 0], advantage(outcomes([1, 1, 1, 0]))[:, 0]
    torch.testing.assert_close(hard.tolist(), [3.0, -1.0, -1.0, -1.0])
    torch.testing.assert_close(easy.tolist(), [1 / 3] * 3 + [-1.0])
    torch.testing.assert_close(advantage(outcomes([7, 0, 0, 0]))[:, 0], hard)
    assert not advantage(outcomes([0, 0, 0, 5.0], [3, 1])).any(), "no success, and a group of one"
    batch = random_batch()
    batch = batch.replace(reward=batch.correct)
    spread = Normalise(eps=0.0)(batch)
    ratio = (advantage(batch) / spread)[spread != 0].reshape(-1)
    assert (ratio > 0).all(), "GRPO's signs, another size"


def test_lite_ppo_is_grpo_on_one_prompt_of_equal_lengths() -> None:
    batch = random_batch(groups=(9,), lengths=EQUAL_LENGTHS)
    same(lite_ppo(), grpo(kl_coef=0.0), batch)


def test_lite_ppo_scales_by_the_batch_and_centres_by_the_prompt() -> None:
    batch = outcomes([1, 1, 1, 0, 0, 0, 0.9, 1.0, 0.9], [3, 3, 3])
    advantage = lite_ppo().advantage(batch)[:, 0]
    assert not advantage[:6].any()
    spread = batch.reward.std(correction=1) + 1e-6
    torch.testing.assert_close(advantage[6:], (batch.reward[6:] - batch.reward[6:].mean()) / spread)


def test_reinforce_plus_plus_whitens_tokens() -> None:
    batch = random_batch(gaps=True)
    for recipe in (reinforce_plus_plus(), reinforce_plus_plus("baseline"), reinforce_plus_plus(gamma=0.9, ddof=1)):
        tokens = ready(recipe, batch).advantage[batch.mask.bool()]
        assert float(tokens.mean()) == pytest.approx(0, abs=1e-12)
        assert float(tokens.var(correction=recipe.get("advantage.ddof"))) == pytest.approx(1)
    rows = Normalise(centre="none", scale="none", whiten="row")(batch)
    each = torch.stack([rows[i][batch.mask[i].bool()][0] for i in range(9)])
    torch.testing.assert_close(each, (batch.reward - batch.reward.mean()) / batch.reward.std(correction=1))


def test_reinforce_plus_plus_is_ppo_without_a_critic() -> None:
    batch = random_batch(gaps=True).replace(old_value=torch.zeros(9, 6, dtype=torch.float64))
    critic_free = ppo(kl_coef=0.2, vf_coef=0.0, epochs=1).replace(advantage=GAE(lam=1.0, ddof=0, whiten_eps=0.0))
    same(reinforce_plus_plus(kl_coef=0.2), critic_free, batch)
    discounted = critic_free.replace(advantage=GAE(gamma=0.8, lam=1.0, ddof=0, whiten_eps=0.0))
    same(reinforce_plus_plus(kl_coef=0.2, gamma=0.8), discounted, batch)


def test_reinforce_plus_plus_with_a_baseline_is_grpo_on_one_prompt_of_equal_lengths() -> None:
    batch = random_batch(groups=(9,), lengths=EQUAL_LENGTHS)
    parent = grpo(kl_coef=0.1, kl="k2").replace(advantage=Normalise(ddof=0, eps=0.0))
    same(reinforce_plus_plus("baseline", kl_coef=0.1), parent, batch)


def test_a_group_of_equal_rewards_is_not_silent_where_lengths_differ() -> None:
    batch = random_batch(groups=(3, 3, 3), lengths=(1, 2, 3, 6, 1, 1, 2, 2, 5))
    batch = batch.replace(reward=torch.tensor([1.0, 1, 1, 1, 0, 0, 0.2, 0.9, 0.4], dtype=torch.float64))
    advantage = reinforce_plus_plus("baseline", kl_coef=0.0).advantage(batch)
    centred = Normalise(scale="none")(batch)[batch.mask.bool()]
    wanted = -centred.mean() / centred.std(correction=0)
    torch.testing.assert_close(advantage[:3][batch.mask[:3].bool()], wanted.expand(6))


# Pass@k --------------------------------------------------------------------------------------------------------------


def subsets(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 1, 2), (6, 3, 4), (4, 1, 4), (8, 2, 3), (5, 4, 2), (5, 0, 3), (4, 4, 2)])
def test_pass_at_k_is_grpo_over_all_subsets(n: int, c: int, k: int) -> None:
    right = [1.0] * c + [0.0] * (n - c)
    best = {s: max(right[i] for i in s) for s in subsets(n, k)}
    mean = sum(best.values()) / len(best)
    std = math.sqrt(mean * (1 - mean))
    wanted = []
    for i in range(n):  # a response is worth what the subsets that it is in are worth on average
        mine = [(x - mean) / (std + 1e-6) for s, x in best.items() if i in s]
        wanted.append(sum(mine) / len(mine))
    got = PassAtK(k=k)(outcomes(right))[:, 0]
    torch.testing.assert_close(got.tolist(), wanted, rtol=1e-9, atol=1e-9)
    assert float(got.sum()) == pytest.approx(0, abs=1e-9)
    if c == 0 or n - c < k:
        assert not got.any()


def test_pass_at_one_is_grpo() -> None:
    batch = random_batch().replace(reward=random_batch().correct)
    torch.testing.assert_close(PassAtK(k=1)(batch), Normalise(ddof=0)(batch), rtol=1e-12, atol=1e-15)
    recipe = pass_at_k(k=1, kl_coef=0.1)
    same(recipe, grpo(kl_coef=0.1).replace(shape=recipe.shape, advantage=Normalise(ddof=0)), random_batch())


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_max_at_k_is_the_sum_over_all_subsets(k: int) -> None:
    rewards, groups = [0.2, 0.9, 0.5, 0.7, 0.1, 0.5, -0.3, 0.4], (5, 3)
    plain, less = (MaxAtK(k=k, leave_one_out=x).weights(outcomes(rewards, groups)).tolist() for x in (False, True))
    start = 0
    for n in groups:
        mine = rewards[start : start + n]
        every = subsets(n, min(k, n))
        for i in range(n):
            with_i = [s for s in every if i in s]
            best = sum(max(mine[j] for j in s) for s in with_i) / len(every)
            others = sum(max((mine[j] for j in s if j != i), default=0.0) for s in with_i) / len(every)
            assert plain[start + i] == pytest.approx(best, abs=1e-12)
            assert less[start + i] == pytest.approx(best - others, abs=1e-12)
        start += n


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(("p", "k"), [(0.3, 2), (0.7, 3), (0.2, 5)])
def test_max_at_k_has_the_gradient_of_pass_at_k(leave_one_out: bool, p: float, k: int) -> None:
    part = MaxAtK(k=k, leave_one_out=leave_one_out)
    assert expected_gradient(part.weights, p, 5) == pytest.approx(k * (1 - p) ** (k - 1), rel=1e-12)


def test_max_at_k_of_the_whole_group_trains_the_best_alone() -> None:
    advantage = pass_at_k(k=4, form="pkpo-loo").advantage(outcomes([0.1, 0.9, 0.3, 0.6]))[:, 0]
    torch.testing.assert_close(advantage.tolist(), [0.0, 4 * (0.9 - 0.6), 0.0, 0.0])


# Ranks ---------------------------------------------------------------------------------------------------------------


def test_ranks_run_inside_a_group_and_ties_go_by_order() -> None:
    x, group = torch.tensor([3.0, 1, 1, 5, 5, 2, 1]), torch.tensor([7, 7, 2, 7, 7, 2, 2])
    assert group_rank(x, group).tolist() == [1, 0, 0, 2, 3, 2, 1]


def test_unlikeliness_without_a_discount_is_grpo_on_mixed_groups() -> None:
    batch = random_batch()
    parent = grpo(kl_coef=0.1).replace(filter=(MixedOutcomes(),))
    same(unlikeliness(beta_rank=0.0), parent, batch)
    assert unlikeliness(beta_rank=0.0).update.epochs == 2


def test_the_least_likely_right_answer_is_worth_most() -> None:
    batch = random_batch(groups=(5, 4), lengths=(3, 6, 2, 5, 1, 4, 4, 2, 6)).replace(
        reward=torch.tensor([1.0, 1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    )
    part = RankDiscount(coef=0.25)
    after, mean = part(batch).reward, (batch.old_logp * batch.mask).sum(-1) / batch.mask.sum(-1)
    for rows, size in ((range(5), 5), (range(5, 9), 4)):
        order = sorted(rows, key=lambda i: float(mean[i]))
        for k, i in enumerate(order):
            assert float(after[i]) == pytest.approx(float(batch.reward[i]) * (1 - 0.25 * k / size))
    shifted = batch.replace(old_logp=batch.old_logp - 0.7 * batch.mask)
    torch.testing.assert_close(part(shifted).reward, after)
    whole = RankDiscount(coef=0.25, length_normalised=False)(batch).reward
    assert not torch.equal(whole, after)
    assert Normalise()(part(batch))[5:].any(), "a group that is all right has a signal again"
    keep = kept(unlikeliness(), batch.replace(correct=batch.reward))
    assert keep.tolist() == [True] * 5 + [False] * 4, "but the original rewards decide what is trained on"


def test_pf_ppo_with_one_response_or_even_weights_is_ppo() -> None:
    alone = random_batch(groups=(1,) * 9)
    for ranks in ("best", "best-random", "best-worst"):
        same(pf_ppo(ranks=ranks), ppo(), alone)
    pairs = random_batch(groups=(2, 2, 2))
    for ranks in ("best-random", "best-worst"):  # of two, both halves of the weight go to one row each
        same(pf_ppo(ranks=ranks), ppo(), pairs)


def test_rank_weights_add_up_and_look_at_order_alone() -> None:
    batch = random_batch(groups=(5, 3, 1))
    wanted = {"best": [1, 0, 0, 0, 0], "best-random": [0.5] + [0.125] * 4, "best-worst": [0.5, 0, 0, 0, 0.5]}
    for ranks, shares in wanted.items():
        part = RankWeight(ranks=ranks)  # type: ignore[arg-type]
        order = batch.reward[:5].argsort(descending=True)
        torch.testing.assert_close(part.share(batch)[:5][order].tolist(), [float(x) for x in shares])
        assert [float(part.share(batch)[rows].sum()) for rows in (slice(0, 5), slice(5, 8), slice(8, 9))] == [1.0] * 3
        torch.testing.assert_close(part.share(batch.replace(reward=batch.reward.exp() * 7 - 3)), part.share(batch))
        assert part(batch.mask, batch)[:5].mean() == pytest.approx(1.0)
    assert RankWeight(ranks="best").share(outcomes([1, 1, 0])).tolist() == [1, 0, 0], "of equals the first"


def test_weighted_r2_is_the_squared_weighted_correlation() -> None:
    g = torch.Generator().manual_seed(0)
    reward, noise, weight = (torch.randn(40, generator=g, dtype=torch.float64) for _ in range(3))
    actual, weight = reward + noise, weight.abs()
    cov = torch.cov(torch.stack([reward, actual]), aweights=weight)
    assert float(weighted_r2(reward, actual, weight)) == pytest.approx(float(cov[0, 1] ** 2 / (cov[0, 0] * cov[1, 1])))
    assert float(weighted_r2(reward, 3 - 2 * reward, weight)) == pytest.approx(1.0)
    assert float(weighted_r2(reward, torch.ones(40, dtype=torch.float64), weight)) == 0.0
    middle = actual.clone()  # a reward that tells nothing in the middle: the extremes say more
    inside = reward.abs() < 1
    middle[inside] = noise[inside] * 2
    extremes = (reward.abs() > 1).double()
    assert weighted_r2(reward, middle, extremes) > weighted_r2(reward, middle, torch.ones_like(reward))


# Length, form, prior prompts -----------------------------------------------------------------------------------------


def lengths(*tokens: float, correct: float = 1.0) -> Batch:
    x = torch.tensor(tokens, dtype=torch.float64)
    return make_batch(
        mask=torch.ones(len(x), 1, dtype=torch.float64), true_length=x, reward=torch.zeros_like(x),
        correct=torch.full_like(x, correct), formatted=torch.ones_like(x), budget=torch.full_like(x, 40),
    )  # fmt: skip


def test_the_cosine_reward_of_open_rs() -> None:
    right, wrong = (shaped(open_rs(w_format=0.0, w_cosine=1.0), lengths(0, 20, 40, 80, correct=c)) for c in (1.0, 0.0))
    torch.testing.assert_close(right.reward.tolist(), [1.0, 0.75, 0.5, 1.0])
    torch.testing.assert_close(wrong.reward.tolist(), [0.0, -0.25, -0.5, 0.0])
    held = shaped(open_rs(clamp=True, w_format=0.0, w_cosine=1.0), lengths(40, 80))
    torch.testing.assert_close(held.reward.tolist(), [0.5, 0.5])
    torch.testing.assert_close(shaped(open_rs(), lengths(40)).reward.tolist(), [1 + 2 * 0.5])
    torch.testing.assert_close(shaped(open_rs(max_len=80), lengths(40)).reward.tolist(), [1 + 2 * 0.75])


def test_without_weights_open_rs_is_grpo_on_the_form() -> None:
    batch = random_batch()
    parent = grpo().replace(shape=(Correctness(right=0.0, wrong=0.0, formatted=1.0),))
    same(open_rs(w_cosine=0.0), parent, batch)


@pytest.mark.parametrize(("past", "wanted"), [("hold", 2.0), ("back", 1.0), ("on", 3.0)])
def test_a_line_beyond_its_end(past: Any, wanted: float) -> None:
    part = LengthReward(past=past, reference=20, right=(0.0, 2.0), wrong=(0.0, 2.0))
    torch.testing.assert_close(part.value(lengths(10, 20, 30)).tolist(), [1.0, 2.0, wanted])
    assert float(part.value(lengths(70))[0]) == {"hold": 2.0, "back": 0.0, "on": 7.0}[past]


def test_ppe_pays_accuracy_and_form_apart() -> None:
    batch = outcomes([1, 1, 0, 0]).replace(formatted=torch.tensor([1.0, 0, 1, 0], dtype=torch.float64))
    assert shaped(ppe(), batch).reward.tolist() == [1.0, 0.5, 0.5, 0.0]
    batch = random_batch()
    same(ppe(1.0, 0.0), grpo().replace(shape=(Correctness(wrong=0.0),)), batch)


TASK = Task("t", (Example("1", user("2+2?"), "4"),) * 3, (Example("2", user("3+3?"), "6"),), JudgeSpec("number"), 8)


@pytest.mark.parametrize("tag", PRIORS)
def test_a_prior_prompt_asks_for_its_own_blocks(tag: str) -> None:
    task = with_prior(TASK, tag)
    content = task.train[0].prompt[0]["content"]
    assert content.endswith("\n\n2+2?")
    assert f"<{tag}>" in content
    assert task.heldout[0].prompt[0]["content"].endswith("3+3?")
    check_judge(task.judge)
    judge = make_judge(task.judge)
    good = f"so <{tag}>2 and 2</{tag}> <answer>4</answer>"
    other = "plan" if tag != "plan" else "code"
    verdict = judge(task.train[0], good)
    assert (verdict.correct, verdict.formatted, verdict.score) == (True, True, 1.0)
    for bad in (
        "<answer>4</answer>", f"<answer>4</answer><{tag}>x</{tag}>", f"<{tag}>x<answer>4</answer></{tag}>",
        f"<{tag}>x</{tag}>" + good, good.replace(tag, other), good.replace("</answer>", ""), good + "<answer>4</answer>",
    ):  # fmt: skip
        assert not judge(task.train[0], bad).formatted, bad
    assert judge(task.train[0], "#### 4").correct, "a right answer out of form is right"


def test_a_prior_prompt_of_ones_own() -> None:
    with_tag = with_prior(TASK, "Write a <draft> before your <answer>.")
    assert with_tag.judge.options["tag"] == "draft"
    assert with_prior(TASK, "Be brief, please.").judge == TASK.judge
    with pytest.raises(UserError, match="no prior prompt is called 'thnk'; nearest: think"):
        with_prior(TASK, "thnk")
    with pytest.raises(UserError, match="empty"):
        with_prior(TASK, " ")


def test_a_task_is_loaded_with_its_prior_prompt() -> None:
    plain, task = (load_task("chain_sum", prior=prior, heldout=2) for prior in (None, "plan"))
    assert len(task.train) == len(plain.train), "questions that are made on demand stay so"
    for a, b in ((plain.train[5], task.train[5]), (plain.heldout[1], task.heldout[1])):
        assert b.prompt[0]["content"] == f"{PRIORS['plan']}\n\n{a.prompt[0]['content']}"
        assert (a.id, a.answer, a.meta) == (b.id, b.answer, b.meta)
    assert [e.id for e in task.train[3:5]] == [e.id for e in plain.train[3:5]]
    judge, example = make_judge(task.judge), task.train[0]
    assert judge(example, f"<plan>add</plan><answer>{example.answer}</answer>") == dataclasses.replace(
        make_judge(plain.judge)(example, f"#### {example.answer}"), formatted=True
    )


def test_a_judge_of_blocks_checks_the_judge_inside() -> None:
    check_judge(JudgeSpec("tagged", {}))
    with pytest.raises(UserError, match="no judge is called 'numbr'"):
        check_judge(JudgeSpec("tagged", {"judge": "numbr"}))
    with pytest.raises(UserError, match="tolerance"):
        check_judge(JudgeSpec("tagged", {"judge": "number", "options": {"tolerance": -1}}))
    with pytest.raises(UserError, match="no option 'tags'"):
        check_judge(JudgeSpec("tagged", {"tags": "think"}))
    assert answer_error(JudgeSpec("tagged", {"judge": "number"}), "many") is not None
    assert answer_error(JudgeSpec("tagged", {"judge": "number"}), "3") is None


def test_only_the_question_of_a_dialogue_gets_the_prior_prompt() -> None:
    dialogue = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "user", "content": "v"})
    task = with_prior(Task("t", (Example("1", dialogue, "4"),), (), JudgeSpec("exact"), 8), "Be brief, please.")
    assert [m["content"] for m in task.train[0].prompt] == ["s", "Be brief, please.\n\nu", "v"]


# Rollouts that look at what they drew --------------------------------------------------------------------------------


class Script:
    """A sampler and judge with given outcomes; the token of a response is its number."""

    def __init__(self, *outcomes: float) -> None:
        self.outcomes, self.keys, self.calls, self.drawn = outcomes, set[tuple[int, ...]](), 0, 0

    async def generate(self, tokens: Any, *, n: int, max_tokens: int, temperature: float, key: Any) -> list[Response]:
        assert not self.keys & {(*key, i) for i in range(n)}, "the same random numbers twice"
        self.keys |= {(*key, i) for i in range(n)}
        self.calls, self.drawn = self.calls + 1, self.drawn + n
        return [Response([i], [-1.0], [0.5], "eos", temperature=temperature) for i in range(self.drawn - n, self.drawn)]

    async def judge(self, responses: Sequence[Response]) -> list[Verdict]:
        scores = [self.outcomes[r.tokens[0]] for r in responses]
        return [Verdict(x, x > 0.5, True, "") for x in scores]

    def draw(self, rollout: Any) -> list[Response]:
        found: list[Response] = asyncio.run(rollout.draw(*ask(self, (1,), 4, (0, 0, 0), self.judge, program=rollout)))
        return found


@pytest.mark.parametrize("scaled", [False, True])
def test_hard_prompts_reach_the_peak_of_advantage(scaled: bool) -> None:
    def advantage(a: float) -> float:
        return 2 * math.sqrt(a * (1 - a)) if scaled else 2 * a * (1 - a)

    equal, hard = (MoreForHard(size=8, most=10_000, target=t, scaled=scaled) for t in ("equal", "hardness"))  # type: ignore[arg-type]
    for right in range(4):
        a = right / 8 or 1 / 16
        for part, factor in ((equal, 1.0), (hard, 2 * (1 - a))):
            extra = part.extra(right / 8)
            target = factor * 8 * advantage(0.5)
            assert (8 + extra) * advantage(a) >= target - 1e-9
            assert (8 + extra - 1) * advantage(a) < target
        assert hard.extra(right / 8) >= equal.extra(right / 8) >= 1
    assert [part.extra(a) for part in (equal, hard) for a in (0.5, 0.625, 1.0)] == [0] * 6
    assert MoreForHard(size=8, most=11).extra(0.0) == 3


def test_dars_draws_more_for_hard_prompts_alone() -> None:
    rollout = dars(group_size=4, most=9).source
    easy, hard = Script(1, 0, 1, 0), Script(*[0.0] * 9)
    assert [r.tokens[0] for r in easy.draw(rollout)] == [0, 1, 2, 3]
    assert [r.tokens[0] for r in hard.draw(rollout)] == [4, 5, 6, 7, 8, 0, 1, 2, 3]
    assert (easy.calls, hard.calls) == (1, 2)


def test_dars_without_room_is_its_parent_with_a_filter() -> None:
    batch = random_batch(groups=(6, 2, 1)).replace(correct=torch.tensor([0.0, 1, 0, 0, 0, 0, 1, 0, 1]))
    recipe = dars(most=8)
    same(recipe, dr_grpo(), batch)
    assert kept(recipe, batch).tolist() == [True] * 8 + [False]
    assert kept(dars(upper_threshold=0.5), batch).tolist() == [True] * 6 + [False] * 3
    assert Script(*[0.0] * 8).draw(recipe.source)[-1].tokens == [7]
    drawn = dlogp(dr_grpo(), batch)
    assert drawn.any()


def test_reinforce_ada_in_one_round_of_n_is_dr_grpo() -> None:
    rollout = UntilMixed(size=4, round_size=4, max_rounds=1)
    drawn = Script(0, 1, 0, 0).draw(rollout)
    assert sorted(r.tokens[0] for r in drawn) == [0, 1, 2, 3]
    assert {r.use for r in drawn} == {"train"}
    batch = with_baseline(random_batch(), ["train"] * 9).replace(reward=random_batch().correct)
    batch = with_baseline(batch, ["train"] * 9)
    same(reinforce_ada(high=0.2), dr_grpo().replace(aggregate=TokenMean()), batch)


def test_reinforce_ada_takes_the_baseline_from_all_that_was_drawn() -> None:
    outcomes = [0.0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    script = Script(*outcomes)
    drawn = script.draw(UntilMixed(size=4, round_size=8, max_rounds=4))
    assert [(r.tokens[0], r.use) for r in drawn[:4]] == [(6, "train"), (13, "train"), (0, "train"), (1, "train")]
    assert {r.use for r in drawn[4:]} == {"pool"}
    assert (script.calls, len(drawn)) == (2, 16)
    recipe = reinforce_ada()
    scores = torch.tensor([outcomes[r.tokens[0]] for r in drawn], dtype=torch.float64)
    mask = torch.ones(16, 1, dtype=torch.float64)
    batch = shaped(recipe, make_batch(mask=mask, reward=scores * 0.8, group=torch.zeros(16, dtype=torch.long)))
    batch = with_baseline(batch, [r.use for r in drawn])[:4]
    torch.testing.assert_close(recipe.advantage(batch)[:, 0].tolist(), [13 / 16, 13 / 16, -3 / 16, -3 / 16])


@pytest.mark.parametrize("stop", ["balanced", "positive"])
def test_reinforce_ada_stops_as_soon_as_it_may_and_never_later_than_it_must(stop: Any) -> None:
    part = UntilMixed(size=5, round_size=5, max_rounds=3, stop=stop)
    g = torch.Generator().manual_seed(1)
    for p in (0.0, 0.1, 0.5, 0.9, 1.0):
        script = Script(*(torch.rand(15, generator=g) < p).double().tolist())
        drawn = script.draw(part)
        right = [script.outcomes[i] > 0.7 for i in range(script.drawn)]
        enough = [
            sum(right[:m]) >= 1 if stop == "positive" else sum(right[:m]) >= 2 and m - sum(right[:m]) >= 3
            for m in (5, 10, 15)
        ]
        assert script.calls == (enough.index(True) + 1 if any(enough) else 3)
        trained = [r.tokens[0] for r in drawn if r.use == "train"]
        assert len(set(trained)) == 5
        good = sum(right[i] for i in trained)
        assert good == max(min(2, sum(right)), 5 - right.count(False))


def test_one_response_that_is_the_baseline_is_no_pool() -> None:
    batch = outcomes([1.0, 0.0, 0.25, 0.5, 0.5, 0.75], [3, 3])
    roles = ["train", "train", "baseline"] * 2
    assert with_baseline(batch, roles).baseline_reward.tolist() == [0.25] * 3 + [0.75] * 3


# T-PPO ---------------------------------------------------------------------------------------------------------------


def test_t_ppo_without_truncation_is_ppo_with_monte_carlo_targets() -> None:
    batch = random_batch(gaps=True).replace(truncated=torch.zeros(9, dtype=torch.float64), new_from=None)
    parent = ppo(kl_coef=0.0).replace(
        advantage=GAE(whiten=False), critic=ClippedValueLoss(clip=None, lam=1.0), shape=t_ppo().shape
    )
    same(t_ppo(), parent, batch)


def test_a_truncated_response_is_taken_to_go_on_as_it_went() -> None:
    batch = random_batch(lengths=(6,) * 9).replace(truncated=torch.tensor([1.0, 0] * 4 + [1.0], dtype=torch.float64))
    batch = ready(t_ppo(), batch)
    cut = batch.truncated > 0.5
    assert not batch.reward[cut].any(), "no outcome leaks in"
    assert (batch.advantage[cut][:, -1] == 0).all()
    value = batch.old_value[cut]
    wanted = sum(0.95**k * (value[:, k + 1] - value[:, k]) for k in range(5))
    torch.testing.assert_close(batch.advantage[cut][:, 0], wanted)
    finished = GAE(whiten=False)(batch)
    torch.testing.assert_close(batch.advantage[~cut], finished[~cut])
    found = gradients(t_ppo(), batch)[1]
    assert not found["value"][cut].any()
    assert found["value"][~cut].any()
    torch.testing.assert_close(batch.returns[~cut], batch.reward[~cut, None].expand(-1, 6))


def test_a_token_trains_the_policy_in_one_window_only() -> None:
    batch = random_batch(lengths=(6, 4, 5, 3, 2, 6, 4, 2, 6))
    total = torch.zeros(9, 6, dtype=torch.float64)
    for start, end in ((0, 2), (2, 5), (5, 6)):
        seen = batch.replace(mask=batch.mask * (torch.arange(6) < end), new_from=torch.full((9,), start))
        part = t_ppo().weight[0]
        weight = part(seen.mask, seen) * seen.mask
        total += weight
        changed = gradients(t_ppo(), ready(t_ppo(), seen))[1]["logp"]
        assert not changed[weight == 0].any()
    torch.testing.assert_close(total, batch.mask)


# RMT -----------------------------------------------------------------------------------------------------------------


def test_rmt_without_length_and_tiers_is_grpo_on_right_and_wrong() -> None:
    batch = random_batch()
    third = (1 / 3,) * 3
    parent = grpo(kl_coef=0.0).replace(shape=(Correctness(wrong=0.0),))
    same(rmt(w=0.0, p1=third), parent, batch)


def test_the_budget_of_rmt_shrinks_by_equal_factors() -> None:
    recipe = rmt(b0=700, gamma=0.3, b_min=250, total_steps=10)
    states: States = {}
    budgets, shares = [], []
    for _ in range(13):
        recipe = control(recipe, {}, states)
        budgets.append(recipe.get("shape.LengthReward.reference"))
        shares.append(recipe.get("weight.TierWeight.share"))
    assert budgets == [max(250, math.floor(700 * 0.3 ** (min(t, 10) / 10))) for t in range(13)]
    assert [tuple(round(x, 9) for x in s) for s in (shares[0], shares[3], shares[5], shares[7], shares[12])] == [
        (0.6, 0.3, 0.1), (0.6, 0.3, 0.1), (0.35, 0.3, 0.35), (0.1, 0.3, 0.6), (0.1, 0.3, 0.6),
    ]  # fmt: skip
    assert all(sum(s) == pytest.approx(1) for s in shares)


def test_the_length_reward_of_rmt_is_a_triangle_over_the_budget() -> None:
    recipe = rmt(b0=20, w=0.5, r_max=2.0)
    got = shaped(recipe, lengths(0, 10, 20, 30, 40, 70)).reward
    torch.testing.assert_close(got.tolist(), [0.5 + 0.5 * x for x in (0.0, 1.0, 2.0, 1.0, 0.0, 0.0)])


def test_tiers_weigh_as_if_a_tier_had_been_drawn_first() -> None:
    batch = random_batch(groups=(2, 3, 1, 2, 1), lengths=(3,) * 9)
    entropy = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7], dtype=torch.float64)[batch.group]
    batch = batch.replace(sampled_entropy=entropy[:, None].expand(9, 6))
    part = TierWeight(share=(0.5, 0.3, 0.2))
    assert part.tiers(batch).tolist() == [1, 1, 0, 0, 0, 2, 0, 0, 1]
    weight = part(batch.mask, batch)[:, 0]
    prompts = weight[[0, 2, 5, 6, 8]]
    torch.testing.assert_close(
        prompts, 5 * torch.tensor([0.3 / 2, 0.5 / 2, 0.2, 0.5 / 2, 0.3 / 2], dtype=torch.float64)
    )
    one = batch[batch.group == 0]
    torch.testing.assert_close(part(one.mask, one), torch.ones(2, 6, dtype=torch.float64))


# Bad fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dars(group_size=8, most=7), "most is 7"),
        (lambda: reinforce_ada(group_size=9, round_size=8), "round_size is 8"),
        (lambda: Schedule(field="x", start_value=1, end_value=0, steps=3, shape="exponential"), "above 0"),
        (lambda: unlikeliness(beta_rank=1.5), "coef"),
        (lambda: pass_at_k(k=0), "k"),
        (lambda: pass_at_k(group_size=1), "needs at least 2"),
        (lambda: maxrl(eps=-1.0), "eps"),
        (lambda: open_rs(max_len=0.0), "reference"),
        (lambda: rmt(p1=(0.5, 0.5, -1.0)), "share"),
        (lambda: dars(upper_threshold=2.0), "high"),
    ],
)
def test_fields_that_make_no_sense_are_refused(make: Callable[[], Recipe], message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        make()


def test_a_pool_needs_a_rollout_that_has_one() -> None:
    with pytest.raises(ValueError, match="baseline_reward"):
        grpo().replace(advantage=reinforce_ada().advantage)
