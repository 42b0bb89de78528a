"""The page of grpo-d."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.divergence.grpo_d import grpo_d
from policyopt.methods.group.grpo import grpo
from policyopt.objective import objective
from tests.batches import gradients, ready
from tests.cases.words._scheduled import scheduled
from tests.methods.shared_divergence import binary, same

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
