"""The page of Kimi k1.5."""

from __future__ import annotations

import pytest
import torch

from policyopt import methods as po
from policyopt.methods.length.kimi_k1_5 import ByFailure, kimi_k1_5
from policyopt.objective import credit, token_gradients
from policyopt.parts import PromptMean, SeqMeanTokenSum
from policyopt.registry import get_method
from policyopt.rows import Batch
from tests.batches import random_batch


def gradient(tau: float, batch: Batch) -> torch.Tensor:
    recipe = kimi_k1_5(tau=tau, weight=0.0)
    batch = credit(recipe, batch)
    return token_gradients(recipe, batch, {"logp": batch.logp})[1]["logp"]


def test_on_policy_it_is_reinforce_with_the_mean_of_the_group_whatever_tau() -> None:
    batch = random_batch(groups=(4, 2))
    batch = batch.replace(old_logp=batch.logp)
    found = gradient(5.0, batch)
    torch.testing.assert_close(found, gradient(0.0, batch))
    first = credit(kimi_k1_5(), batch).advantage[:4]
    torch.testing.assert_close(found[:4], -first / 8 * batch.mask[:4])  # each of two prompts counts a half


def test_equal_rewards_leave_the_pull_back_and_all_tokens_of_a_response_share_it() -> None:
    batch = random_batch(groups=(3,))
    batch = batch.replace(reward=torch.ones_like(batch.reward))
    found, moved = gradient(0.3, batch), ((batch.logp - batch.old_logp) * batch.mask).sum(-1)
    torch.testing.assert_close(found, 0.3 * moved[:, None] / 3 * batch.mask)
    assert not gradient(0.0, batch).any()


def test_each_prompt_weighs_the_same_however_many_responses_it_has() -> None:
    batch = random_batch(groups=(4, 2, 1))
    share = PromptMean(inner=SeqMeanTokenSum())(batch)[:, 0]
    assert share.tolist() == pytest.approx([1 / 12] * 4 + [1 / 6] * 2 + [1 / 3])


def test_solved_prompts_are_not_drawn_and_new_ones_are_as_if_never_solved() -> None:
    weights = ByFailure().weights(torch.tensor([[1.0], [0.25], [torch.nan]]))
    assert weights.tolist() == [0, 0.75, 1]


def test_a_version_number_has_a_point() -> None:
    assert get_method("Kimi K1.5").name == "kimi-k1.5" == get_method("kimi_k1_5").name
    assert po.kimi_k1_5 is get_method("kimi-k1.5")
