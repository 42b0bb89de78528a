"""The page of multiturn-recipe."""

from __future__ import annotations

import torch

from policyopt.methods.agents.multiturn_recipe import TurnShares, multiturn_recipe
from policyopt.objective import advantages, shaped
from policyopt.parts.advantage.gae import token_rewards
from policyopt.rows import Batch, make_batch, pad
from tests.batches import gradients, random_batch, ready


def played(rewards: list[list[float]], won: list[float], value: float = 0.0) -> Batch:
    """Episodes of one prompt: two tokens of the policy a turn, and one of the environment between two turns."""
    mask = [[float(t % 3 < 2) for t in range(3 * len(one) - 1)] for one in rewards]
    batch = make_batch(
        mask=pad(mask, torch.float64), present=pad([[1.0] * len(row) for row in mask], torch.float64),
        group=torch.zeros(len(rewards), dtype=torch.long), correct=torch.tensor(won, dtype=torch.float64),
        reward=torch.tensor([sum(one) for one in rewards], dtype=torch.float64), truncated=torch.zeros(len(rewards)),
        turn_reward=pad(rewards, torch.float64), turn_end=pad([[3 * k + 1 for k in range(len(one))] for one in rewards], torch.long, -1),
    )  # fmt: skip
    return batch.replace(old_value=torch.full_like(batch.mask, value))


def test_a_won_episode_is_worth_one_and_a_lost_one_at_most_that() -> None:
    batch = played([[1, 0, 1], [1, 1], [1, 0, 0]], [1, 1, 0])
    found = token_rewards(TurnShares()(batch))
    assert found.sum(1).tolist() == [1.0, 1.0, 0.5], "two rewards are the most that the prompt has given"
    assert found[0].nonzero()[:, 0].tolist() == [1, 7], "the last tokens of the turns that earned something"
    assert token_rewards(TurnShares(most=4)(batch)).sum(1).tolist() == [1.0, 1.0, 0.25]


def test_what_the_environment_says_takes_no_part() -> None:
    batch = played([[0, 1], [0, 0]], [1, 0], value=0.3)
    recipe = multiturn_recipe(kl_coef=0.0)
    other = batch.replace(old_value=torch.where(batch.mask > 0, batch.old_value, 50.0))
    torch.testing.assert_close(advantages(recipe, shaped(recipe, batch)), advantages(recipe, shaped(recipe, other)))


def test_where_rewards_stand_matters_to_the_critic_alone() -> None:
    batch = played([[1, 0], [0, 0], [1, 1]], [1, 0, 1])
    for name, same in (("critic", False), ("group", True), ("leave-one-out", True)):
        dense, sparse = (multiturn_recipe(name, placement, kl_coef=0.0) for placement in ("dense", "sparse"))
        a, b = (advantages(recipe, shaped(recipe, batch)) for recipe in (dense, sparse))
        assert torch.allclose(a, b, atol=1e-12) == same


def test_one_turn_is_the_parent() -> None:
    batch = random_batch().replace(turn_end=None, turn_reward=None)
    recipe = multiturn_recipe()
    plain = recipe.replace(shape=recipe.shape[1:])
    lost = batch.replace(reward=batch.correct)
    (loss, got), (other, wanted) = gradients(recipe, ready(recipe, lost)), gradients(plain, ready(plain, lost))
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(got["logp"], wanted["logp"])
