"""The page of ProRAG."""

from __future__ import annotations

import torch

from policyopt.methods.agents.prorag import FlooredOutcome, OutcomeAndSteps, prorag
from policyopt.methods.group.grpo import grpo
from policyopt.parts import TokenMean
from policyopt.rows import Batch, make_batch
from tests.batches import dlogp, random_batch


def episodes(turn_reward: list[list[float]], ends: list[list[int]], reward: list[float]) -> Batch:
    n = len(reward)
    return make_batch(
        mask=torch.ones(n, 6, dtype=torch.float64), group=torch.zeros(n, dtype=torch.long),
        reward=torch.tensor(reward, dtype=torch.float64), turn_end=torch.tensor(ends),
        turn_reward=torch.tensor(turn_reward, dtype=torch.float64),
    )  # fmt: skip


def test_without_steps_it_is_grpo() -> None:
    batch = random_batch()
    recipe = grpo(kl_coef=0.0).replace(aggregate=TokenMean(), advantage=OutcomeAndSteps().outcome)
    assert torch.equal(dlogp(prorag(beta=0.0), batch), dlogp(recipe, batch))


def test_a_constant_on_all_steps_changes_nothing_and_equal_outcomes_still_teach() -> None:
    scores = [[0.1, 0.9], [0.4, 0.2]]
    batch = episodes(scores, [[1, 5], [3, 5]], [1.0, 1.0])
    found = OutcomeAndSteps()(batch)
    moved = OutcomeAndSteps()(batch.replace(turn_reward=batch.turn_reward + 3))
    assert torch.allclose(found, moved)
    assert found[0, 0] < 0 < found[0, 5] and found[0].unique().numel() == 2


def test_tokens_are_pooled_not_steps() -> None:
    batch = episodes([[0.0, 1.0], [0.0, 1.0]], [[0, 5], [0, 5]], [1.0, 1.0])
    assert abs(float(OutcomeAndSteps(beta=1.0)(batch)[0, 0])) > abs(float(OutcomeAndSteps(beta=1.0)(batch)[0, 5]))


def test_tokens_behind_the_last_step_and_of_others_have_no_step() -> None:
    batch = episodes([[0.0, 1.0], [0.5, 0.0]], [[1, 3], [2, -1]], [1.0, 1.0])
    mask = batch.mask.clone()
    mask[0, 2] = 0
    found = OutcomeAndSteps()(batch.replace(mask=mask))
    assert found[0, 4:].tolist() == [0, 0] and found[1, 3:].tolist() == [0, 0, 0] and found[0, 2] == 0


def test_an_answer_below_the_floor_is_worth_nothing() -> None:
    f1 = torch.tensor([0.1, 0.2])
    batch = make_batch(mask=torch.ones(2, 1), reward=f1, formatted=torch.tensor([1.0, 0.0]))
    assert torch.allclose(FlooredOutcome()(batch.replace(**{"component[f1]": f1})).reward, torch.tensor([1.0, -0.6]))
    assert FlooredOutcome()(batch).reward is batch.reward


def test_a_turn_may_be_scored_by_what_the_world_counts() -> None:
    batch = episodes([[0.0, 1.0], [0.0, 1.0]], [[1, 5], [1, 5]], [1.0, 1.0])
    counted = batch.replace(**{"turn_number[hop]": torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)})
    found = OutcomeAndSteps(counts=("hop",))(counted)
    assert found[0, 0] > 0 > found[0, 5] and found[0, 5] == found[1, 0]
