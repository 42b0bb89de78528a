"""The page of VSC-RL."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.agents.vsc_rl import HardFilter, SubgoalClassifier, first_tokens, segments, vsc_rl
from policyopt.rows import Batch, make_batch
from tests.batches import dlogp, random_batch


def episodes(worth: list[list[float]], probability: list[list[float]]) -> Batch:
    """Two tokens for each turn, and one of the world behind it; what the critic says on other tokens than the first is of no
    account."""
    n, k = len(worth), max(map(len, worth))
    turns = [[1.0, 1.0, 0.0] * len(row) + [0.0] * 3 * (k - len(row)) for row in worth]
    logits = [
        [x for p in [*row, *[0.5] * (k - len(row))] for x in (float(torch.tensor(p).logit()), 7.0, 7.0)]
        for row in probability
    ]
    return make_batch(
        mask=torch.tensor(turns), turn_end=torch.tensor([[3 * j + 1 if j < len(r) else -1 for j in range(k)] for r in worth]),
        turn_reward=torch.tensor([[*r, *[0.0] * (k - len(r))] for r in worth]), reward=torch.tensor([sum(r) for r in worth]),
        old_value=torch.tensor(logits), value=torch.tensor(logits), group=torch.arange(n),
    )  # fmt: skip


def test_segments_cover_episodes_of_any_length_in_order() -> None:
    reward = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    there = torch.tensor([[True, True, True, False], [True] * 4, [True, False, False, False]])
    number, reached, left = segments(reward, there)
    assert [row[on].tolist() for row, on in zip(number, there, strict=True)] == [[0, 0, 1], [0, 0, 1, 1], [0]]
    assert reached.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert left.tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_weights_are_0_and_1_and_a_turn_of_a_success_counts_unless_its_value_fell_further() -> None:
    # 0.9 -> 0.05: the drop of 0.85 and the margin of 0.05 are more than the return of a half that is still to come
    batch = episodes([[0.0, 1.0], [0.0, 0.0]], [[0.9, 0.05], [0.5, 0.5]])
    found = HardFilter(clone=0.0, quantile=0.0)(batch)
    assert found[0].tolist() == [0, 0, 0, 1, 1, 0], "the last turn reached the subgoal"
    assert found[1].tolist() == [0, 0, 0, 0, 0, 0]
    assert HardFilter(clone=0.5, quantile=0.0)(batch)[0].tolist() == [0.5, 0.5, 0, 1.5, 1.5, 0]


def test_only_segments_that_surpass_what_was_expected_teach() -> None:
    batch = episodes([[1.0], [1.0], [0.0]], [[0.2], [0.8], [0.1]])
    assert HardFilter(clone=0.0, quantile=0.9)(batch)[:, 0].tolist() == [1, 0, 0]


def test_the_critic_learns_at_the_first_token_of_each_turn_whether_the_subgoal_comes() -> None:
    batch = episodes([[0.0, 1.0, 0.0]], [[0.25, 0.5, 0.5]])
    part = SubgoalClassifier()
    batch = batch.replace(returns=part.target(batch))
    assert first_tokens(batch)[0].tolist() == [1, 0, 0] * 3
    loss = -torch.tensor([0.25, 0.5, 0.5]).log().sum() / 3
    assert part(batch).sum() == pytest.approx(float(loss)), "reached, reached, and the tail was not"


def test_a_turn_of_no_weight_has_no_gradient() -> None:
    recipe = vsc_rl(clone=0.0)
    batch = random_batch()
    advantage = HardFilter(clone=0.0)(batch)
    assert {0.0, 1.0} >= set(advantage.unique().tolist())
    assert torch.equal(dlogp(recipe, batch) != 0, advantage > 0)


def test_subgoals_may_be_what_the_world_counts() -> None:
    batch = episodes([[0.0, 0.0, 1.0]], [[0.5, 0.5, 0.5]])
    counted = batch.replace(**{"turn_number[key]": torch.tensor([[1.0, 0.0, 0.0]])})
    named = SubgoalClassifier(subgoals=("key", "goal"))
    assert named.needs == {"turn_end", "turn_number[key]", "turn_number[goal]", "value"}
    assert named.target(counted)[0, [0, 3, 6]].tolist() == [1, 0, 0], "the goal is none of those that are counted here"
    assert SubgoalClassifier().target(counted)[0, [0, 3, 6]].tolist() == [1, 1, 1]
    assert HardFilter(clone=1.0, quantile=0.0, subgoals=("key",))(counted)[0, [0, 3]].tolist() == [2, 0]
