"""The page of a2po."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import pytest
import torch

from policyopt.methods.contrast.a2po import GroupWithOptimalValue, KeptBaseline, a2po, optimal_value
from policyopt.objective import objective
from tests.batches import dlogp, on_policy, random_batch, ready
from tests.cases.words._scripted import verdict
from tests.methods.shared_limits import alike
from tests.methods.shared_targets import Author, asked


def test_the_value_lies_between_the_mean_and_the_best() -> None:
    rewards = [1.0, 0.0, 0.0, 0.5]
    assert optimal_value(rewards, 0.5) == pytest.approx(0.5 * math.log(sum(math.exp(r / 0.5) for r in rewards) / 4))
    assert optimal_value(rewards, 0) == pytest.approx(0.375) == pytest.approx(optimal_value(rewards, 1e6), abs=1e-6)
    assert optimal_value(rewards, 1e-3) == pytest.approx(1 - 1e-3 * math.log(4)), "no overflow"
    assert optimal_value([0.3] * 3, 0.5) == pytest.approx(0.3)


def test_the_loss_is_a_regression_of_the_whole_log_ratio() -> None:
    batch, recipe = random_batch(groups=(2, 1, 2)), a2po(beta2=0.2)
    with torch.no_grad():
        ratio = ((batch.logp - batch.ref_logp) * batch.mask).sum(-1)
        error = 0.2 * ratio + batch.baseline_reward - batch.reward
    batch = batch.replace(token_reward=None)
    alike(objective(recipe, ready(recipe, batch)), error.square().mean())
    alike(dlogp(recipe, batch), 2 * 0.2 * error[:, None] * batch.mask / 5)


def test_where_the_policy_is_the_reference_it_is_reinforce_against_the_value() -> None:
    batch = on_policy(random_batch()).replace(token_reward=None)
    batch = batch.replace(ref_logp=batch.logp)
    gain = batch.reward - batch.baseline_reward
    alike(dlogp(a2po(beta2=0.5), batch), -gain[:, None] * batch.mask / len(batch))


def test_the_reference_is_asked_once_for_each_prompt() -> None:
    program = GroupWithOptimalValue(size=1, samples=3, beta=0.0)
    mine, theirs = Author([[5, 2]]), Author([[8, 2]], [verdict(1.0), verdict(0.0), verdict(0.5)])
    [row] = asyncio.run(program.draw(*asked(mine, program=program, samplers={"reference": theirs})))
    assert row.columns["baseline_reward"] == pytest.approx(0.5)
    assert row.tokens == [5, 2]
    assert theirs.asked == 3
    question, context = asked(mine, program=program, samplers={"reference": theirs})
    [row] = asyncio.run(program.draw(dataclasses.replace(question, history=(0.7,)), context))
    assert row.columns["baseline_reward"] == 0.7
    assert theirs.asked == 3
    asyncio.run(program.draw(dataclasses.replace(question, history=(math.nan,)), context))
    assert theirs.asked == 6


def test_what_is_remembered_is_the_value() -> None:
    batch = random_batch()
    alike(KeptBaseline()(batch)[:, 0], batch.baseline_reward)
