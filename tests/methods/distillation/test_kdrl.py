"""The page of kdrl."""

from __future__ import annotations

import pytest
import torch

from policyopt.errors import UserError
from policyopt.methods.distillation.kdrl import ROWS, Unsolved, kdrl
from policyopt.methods.group.grpo import grpo
from policyopt.parts import RatioTimesAdvantage, TokenMean
from policyopt.parts.regularizer.kl import KL
from tests.batches import gradients, on_policy, ready
from tests.cases.words._scheduled import scheduled
from tests.methods.shared_divergence import binary, same

# KDRL ------------------------------------------------------------------------------------------------------------------


def test_kdrl_without_its_teacher_is_grpo_over_tokens_without_a_clip() -> None:
    parent = grpo(None, None, kl_coef=0.0).replace(aggregate=TokenMean(), surrogate=RatioTimesAdvantage())
    same(kdrl(kl_coef=0.0, kl_min=0.0), parent, binary())


def test_kdrl_without_signal_is_distillation() -> None:
    batch = binary().replace(reward=torch.ones(9, dtype=torch.float64))
    loss, found = gradients(kdrl(kl_coef=0.2), ready(kdrl(), batch))
    share = batch.mask / batch.mask.sum()
    torch.testing.assert_close(found["logp"], 0.2 * share * (batch.logp - batch.teacher_logp))
    assert float(loss) == pytest.approx(0.1 * float((share * (batch.logp - batch.teacher_logp) ** 2).sum()))


def test_the_rows_that_the_teacher_speaks_to() -> None:
    batch = binary().replace(correct=torch.tensor([1.0, 0, 0, 1, 0, 0, 0, 0, 1], dtype=torch.float64))
    picked = {rows: KL(target="teacher", rows=r).picked(batch).tolist() for rows, r in ROWS.items()}
    assert picked["all"] == [1.0] * 9
    assert picked["wrong"] == [0.0, 1, 1, 0, 1, 1, 1, 1, 0]
    assert picked["unsolved"] == [0.0, 0, 0, 0, 1, 1, 1, 0, 0]
    for rows, keep in picked.items():
        both = [gradients(r, ready(r, batch))[1]["logp"] for r in (kdrl(rows=rows), kdrl(kl_coef=0.0, kl_min=0.0))]
        moved = (both[0] - both[1]).abs().sum(1) > 0
        assert moved.tolist() == [bool(k) for k in keep]
    assert KL(rows=Unsolved()).unit == "group"
    assert KL(target="teacher").needs == {"teacher_logp"}
    with pytest.raises(UserError, match="rows is 'some', but the teacher speaks to one of all, wrong, unsolved"):
        kdrl(rows="some")  # type: ignore[arg-type]


def test_a_teacher_raises_tokens_of_wrong_answers_too() -> None:
    batch = on_policy(binary())
    batch = batch.replace(teacher_logp=batch.old_logp + 2)
    found = gradients(kdrl(kl_coef=5.0), ready(kdrl(), batch))[1]["logp"]
    assert (found[batch.mask.bool()] < 0).all()


def test_the_weight_of_the_teacher_falls_to_its_floor() -> None:
    recipe = kdrl(kl_coef=0.05, kl_min=0.012, kl_decay=0.004)
    values = [scheduled(recipe, s).get("regularizers.KL.coef") for s in (0, 1, 9, 10, 500)]
    assert values == pytest.approx([0.05, 0.046, 0.014, 0.012, 0.012])
    assert not kdrl(kl_decay=0.0).controllers
    assert kdrl(kl_coef=1e-4, kl_min=1e-3).get("regularizers.KL.coef") == 1e-3
