"""The page of dcpo-clipping."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.methods.clip.dcpo_clipping import ProbabilityBounds, SmoothNormalise, VisitMoments, dcpo_clipping
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise
from policyopt.rows import Batch, make_batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_ratios import same

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
