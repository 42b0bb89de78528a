"""The page of poad."""

from __future__ import annotations

from typing import Any

import torch

from policyopt.methods.agents.poad import ActionGAE, ActionValueLoss
from policyopt.parts import GAE
from policyopt.rows import Batch, make_batch, pad


def episode(lengths: list[int], rewards: list[float], **columns: Any) -> Batch:
    """One episode whose actions have so many tokens, with one of the environment between two."""
    mask, ends = [], []
    for n in lengths:
        mask += [1.0] * n + [0.0]
        ends.append(len(mask) - 2)
    values = torch.linspace(0.1, 0.9, len(mask), dtype=torch.float64)[None]
    known = {"truncated": torch.zeros(1, dtype=torch.float64), "old_value": values} | columns
    return make_batch(
        mask=torch.tensor([mask], dtype=torch.float64), present=torch.ones(1, len(mask), dtype=torch.float64),
        group=torch.zeros(1, dtype=torch.long), reward=torch.tensor([sum(rewards)], dtype=torch.float64),
        turn_reward=pad([rewards], torch.float64), turn_end=torch.tensor([ends]), **known,
    )  # fmt: skip


def test_actions_of_one_token_are_ordinary_steps() -> None:
    batch = episode([1, 1, 1], [0.0, 0.0, 1.0])
    torch.testing.assert_close(ActionGAE(gamma=0.9, whiten=False)(batch), GAE(gamma=0.9, whiten=False)(batch))


def test_without_a_discount_tokens_and_actions_are_the_same() -> None:
    batch = episode([3, 1, 2], [0.0, 0.0, 1.0])
    torch.testing.assert_close(ActionGAE(gamma=1.0, whiten=False)(batch), GAE(gamma=1.0, whiten=False)(batch))


def test_with_lambda_one_the_target_is_the_return_from_the_action_on() -> None:
    batch = episode([3, 1, 2], [0.5, 0.0, 1.0])
    found = ActionValueLoss(gamma=0.9, lam=1.0).target(batch)[0]
    wanted = [0.5 + 0.81, 0.9, 1.0]
    got = [x for x, own in zip(found.tolist(), batch.mask[0].tolist(), strict=True) if own]
    torch.testing.assert_close(torch.tensor(got), torch.tensor([wanted[0]] * 3 + [wanted[1]] + [wanted[2]] * 2))


def test_a_longer_action_costs_earlier_ones_nothing() -> None:
    def first(lengths: list[int], part: Any) -> float:
        batch = episode(lengths, [0.0, 1.0])
        return float(part(batch.replace(old_value=0 * batch.old_value))[0, 0])

    mine, tokens = ActionGAE(gamma=0.9, lam=1.0, whiten=False), GAE(gamma=0.9, lam=1.0, whiten=False)
    assert first([2, 1], mine) == first([2, 5], mine)
    assert first([2, 1], tokens) > first([2, 5], tokens)


def test_the_value_goes_on_where_an_episode_was_cut_off() -> None:
    batch = episode([2], [0.0])
    cut = batch.replace(truncated=torch.ones(1, dtype=torch.float64))
    part = ActionGAE(gamma=0.9, lam=0.0, whiten=False)
    last = float(batch.old_value[0, 1])
    torch.testing.assert_close(part(cut)[0, 1] - part(batch)[0, 1], torch.tensor(0.9 * last, dtype=torch.float64))
