"""The page of OSPO."""

from __future__ import annotations

import torch

from policyopt.methods.agents.ospo import SameStep
from policyopt.parts import Normalise
from policyopt.rows import Batch, make_batch


def episodes(worth: list[list[float]]) -> Batch:
    """A token for each turn."""
    n, k = len(worth), max(map(len, worth))
    ends = [[j if j < len(row) else -1 for j in range(k)] for row in worth]
    padded = [[*row, *[0.0] * (k - len(row))] for row in worth]
    there = (torch.tensor(ends) >= 0).double()
    return make_batch(
        mask=there, turn_end=torch.tensor(ends), turn_reward=torch.tensor(padded, dtype=torch.float64),
        reward=torch.tensor([sum(row) for row in worth], dtype=torch.float64), group=torch.zeros(n, dtype=torch.long),
    )  # fmt: skip


def test_a_constant_on_all_of_a_step_changes_nothing_and_the_first_term_has_mean_0() -> None:
    batch = episodes([[1.0, 0.2], [0.0, 0.7], [0.5, 0.1]])
    found = SameStep()(batch)
    moved = batch.turn_reward + torch.tensor([3.0, 0.0])
    assert torch.allclose(found, SameStep()(batch.replace(turn_reward=moved, reward=batch.reward + 3)))
    assert SameStep(fairness=0.0)(batch).sum(0).abs().max() < 1e-12


def test_an_episode_that_is_alone_at_a_step_has_the_term_of_fairness_alone() -> None:
    batch = episodes([[1.0, 5.0], [1.0]])
    assert SameStep(fairness=0.0)(batch)[0, 1] == 0
    assert SameStep()(batch)[0, 1] == -2.5, "who is idle counts: 1 and 1 become 6 and 1"
    assert SameStep()(batch)[1, 1] == 0, "no turn, no advantage"


def test_where_earnings_come_together_all_of_the_step_gain() -> None:
    batch = episodes([[2.0, 0.0], [0.0, 2.0]])
    gain = SameStep()(batch) - SameStep(fairness=0.0)(batch)
    assert torch.allclose(gain, torch.tensor([[-1.0, 1.0]], dtype=torch.float64))


def test_one_turn_without_fairness_is_grpo() -> None:
    batch = episodes([[1.0], [0.0], [0.25]])
    assert torch.allclose(SameStep(fairness=0.0)(batch), Normalise(ddof=0, eps=1e-8)(batch))
