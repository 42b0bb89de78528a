"""BRAIn: targets and policy as distributions over the responses to a prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from policyopt.methods.contrast.brain import brain
from policyopt.methods.preference.dpo import dpo
from policyopt.parts import RowScore
from policyopt.rows import Batch
from tests.batches import random_batch
from tests.methods.preference.pairs import pairs, worked

BATCH = random_batch(1)


def same(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=tolerance, atol=tolerance)


def row_gradient(batch: Batch, gamma: float = 1.0) -> torch.Tensor:
    """dL/d log pi of a response, [N], the same on its tokens."""
    gradient = worked(brain(gamma=gamma), batch)[1]
    first = gradient[:, 0]
    same(gradient, first[:, None] * batch.mask)
    return first


def test_the_weights_of_a_prompt_add_up_to_nothing() -> None:
    gradient = row_gradient(BATCH)
    same(torch.zeros(3).double().index_add(0, BATCH.group, gradient), torch.zeros(3).double())
    assert gradient.abs().max() > 0.01


def test_the_posterior_has_no_loss_and_no_gradient_row_by_row() -> None:
    tilt = BATCH.reward / 0.5 + 7.0 * BATCH.group  # a constant of the prompt is its normaliser
    at = BATCH.replace(logp=BATCH.ref_logp + BATCH.terminal() * tilt[:, None])
    loss, gradient = worked(brain(gamma=0.5), at)
    assert loss == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_a_shift_of_the_rewards_of_a_prompt_changes_nothing() -> None:
    moved = BATCH.replace(reward=BATCH.reward + 3.0 * BATCH.group - 1)
    same(row_gradient(moved), row_gradient(BATCH))


def test_equal_rewards_on_the_policy_of_the_start_teach_nothing() -> None:
    start = BATCH.replace(logp=BATCH.old_logp, ref_logp=BATCH.old_logp, reward=torch.ones_like(BATCH.reward))
    assert row_gradient(start).abs().max() < 1e-12


def test_gamma_goes_from_the_best_response_to_the_prior() -> None:
    start = BATCH.replace(logp=BATCH.old_logp, ref_logp=BATCH.old_logp)
    part = brain(gamma=1e-3).get("surrogate")
    best = part.log_target(start.replace(advantage=start.reward[:, None] * start.mask)).exp()
    assert sorted(best.round(decimals=6).tolist()) == [0.0] * 6 + [1.0] * 3
    assert row_gradient(start, gamma=1e9).abs().max() < 1e-8


def test_two_responses_and_a_target_of_all_or_nothing_are_dpo_of_beta_1_against_who_drew() -> None:
    batch = pairs([(4, 2), (1, 4), (3, 3)])
    against = dpo(beta=1.0).set("surrogate.score", RowScore(against="old"))
    (a, up), (b, down) = worked(brain(gamma=1e-3), batch), worked(against, batch)
    assert a == pytest.approx(b)
    same(up, down)
