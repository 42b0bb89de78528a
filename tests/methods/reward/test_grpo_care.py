"""The page of grpo-care."""

from __future__ import annotations

import torch

from policyopt.methods.group.grpo import grpo
from policyopt.methods.reward.grpo_care import ConsistencyBonus, grpo_care
from policyopt.parts import LastAnswer, Normalise, WeightedSum
from tests.batches import random_batch
from tests.methods.shared_credit import same

COLUMN = LastAnswer().column


def test_without_a_bonus_it_is_grpo_on_accuracy_and_format() -> None:
    parent = grpo(kl_coef=0.0).replace(
        shape=(WeightedSum((("correct", 1.0), ("formatted", 1.0))),), advantage=Normalise(eps=1e-4)
    )
    same(grpo_care(bonus=0.0), parent, random_batch(needs=[COLUMN]))


def test_the_surest_right_response_always_gets_it_and_a_wrong_one_never() -> None:
    part = ConsistencyBonus(margin=0.0)
    batch = random_batch(groups=(6, 1, 4), needs=[COLUMN])
    batch = batch.replace(**{COLUMN: batch.mask})
    paid, sure = part.paid(batch), part.confidence(batch)
    assert not paid[batch.correct == 0].any()
    for group in batch.group.unique():
        rows = (batch.group == group) & (batch.correct > 0)
        if rows.any():
            assert paid[rows][sure[rows].argmax()] > 0
    alike = batch.replace(ref_logp=torch.full_like(batch.mask, -0.3))
    assert torch.equal(ConsistencyBonus().paid(alike) > 0, batch.correct > 0), "equally sure ones all get it"
    near = batch.replace(ref_logp=torch.where(torch.arange(6) % 2 == 0, -0.04, -0.02) * batch.mask)
    assert torch.equal(ConsistencyBonus().paid(near) > 0, batch.correct > 0), (
        "what is nearly certain competes no longer"
    )


def test_only_the_tokens_of_the_answer_count() -> None:
    batch = random_batch(needs=[COLUMN])
    span = batch.span("LastAnswer")
    moved = batch.replace(ref_logp=torch.where(span > 0, batch.ref_logp, -5.0))
    assert torch.equal(ConsistencyBonus()(moved).reward, ConsistencyBonus()(batch).reward)
    none = batch.replace(**{COLUMN: torch.zeros_like(span)})
    assert torch.equal(ConsistencyBonus()(none).reward, batch.reward), "no answer, nothing to be sure of"


def test_the_reference_follows_every_ten_steps() -> None:
    follow = grpo_care().reference
    assert [step for step in range(1, 31) if follow(step)] == [10, 20, 30]
    assert abs(follow(10) - 0.005) < 1e-12
