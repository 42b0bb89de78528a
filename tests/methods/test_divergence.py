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
from policyopt.methods.analysis.alignment_asymptotics import kl
from policyopt.methods.analysis.policy_cliff import RewardCliff
from policyopt.methods.analysis.rl_subnetworks import UpdateSparsity
from policyopt.methods.distillation.aligndistil import ExtrapolatedKL
from policyopt.methods.distillation.gkd import gkd
from policyopt.methods.distillation.kdrl import kdrl
from policyopt.methods.distillation.otr import OneToken
from policyopt.methods.divergence.orpo_chi2 import SequenceDivergence, orpo_chi2
from policyopt.methods.divergence.rl_as_bayes import PosteriorWeight, log_evidence, regularised_value, rl_as_bayes
from policyopt.models.causal import split_model
from policyopt.models.embedded import random_tiny
from policyopt.objective import objective
from policyopt.parts.probe.tilt import optimal_set, tilt
from policyopt.parts.regularizer.kl import KL, kl_estimate
from policyopt.parts.statistic.jsd import JSD
from policyopt.rows import Batch, make_batch
from policyopt.sources.draw import Demonstrated
from policyopt.sources.program import Response
from tests.asking import ask
from tests.batches import ready
from tests.methods.shared_divergence import PRIOR, REWARD, binary, distributions, same


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


# The cliff -------------------------------------------------------------------------------------------------------------


def test_a_gap_protects_the_best_answer_and_a_tie_does_not() -> None:
    value = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
    for seed in range(20):
        change = 0.199 * (2 * torch.rand(3, generator=torch.Generator().manual_seed(seed)).double() - 1)
        assert torch.equal(optimal_set(value + change), optimal_set(value))
    tied = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    assert optimal_set(tied).tolist() == [True, True, False]
    assert optimal_set(tied + torch.tensor([0, 1e-6, 0])).tolist() == [False, True, False]


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
