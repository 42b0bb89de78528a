"""The page of ADORA."""

from __future__ import annotations

import pytest
import torch

from policyopt.methods.credit.adora import LongPays, adora
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Weighed
from policyopt.rows import Batch
from tests.batches import random_batch, ready
from tests.methods.shared_credit import outcomes, same


def judged(*rows: tuple[float, int], groups: list[int] | None = None) -> Batch:
    """Reward and length of each response, of at most 40 tokens."""
    batch = outcomes([r for r, _ in rows], groups or [len(rows)])
    length = torch.tensor([n for _, n in rows], dtype=torch.float64)
    return batch.replace(true_length=length, budget=torch.full((len(rows),), 40))


def test_a_longer_right_answer_can_only_raise_the_weight() -> None:
    weights = [float(LongPays()(judged((1, n), (1, 3), (0, 10), (0, 20)))[0]) for n in (1, 14, 15, 16, 39)]
    assert weights == [0.1, 0.1, 0.1, 1, 1]


def test_a_truncated_wrong_response_does_not_count_and_one_below_the_limit_does() -> None:
    assert LongPays()(judged((1, 15), (0, 10), (0, 40))).tolist() == [1, 1, 1]
    assert LongPays()(judged((1, 15), (0, 10), (0, 39))).tolist() == pytest.approx([0.1] * 3)


def test_the_two_programs_differ_where_a_side_is_empty() -> None:
    batch = judged((1, 5), (1, 6), (0, 5), (0, 6), (1, 3), (0, 40), groups=[2, 2, 2])
    assert LongPays()(batch).tolist() == pytest.approx([1, 1, 0.1, 0.1, 1, 1])
    assert LongPays(empty="vlm")(batch).tolist() == pytest.approx([0.1, 0.1, 1, 1, 0.1, 0.1])


def test_whole_prompts_are_weighed_after_they_were_normalised() -> None:
    batch = random_batch()
    same(adora(damping=1.0, kl_coef=0.04), grpo(), batch)
    parent, weighed = (ready(recipe, batch).advantage for recipe in (grpo(), adora()))
    rule = adora().advantage
    assert isinstance(rule, Weighed)
    torch.testing.assert_close(weighed, parent * rule.by(batch)[:, None])
    assert len(rule.by(batch).unique()) == 2
