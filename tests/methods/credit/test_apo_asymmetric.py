"""The page of APO, the asymmetric one."""

from __future__ import annotations

import math

import pytest
import torch

from policyopt.groups import group_mean
from policyopt.methods.credit.apo_asymmetric import LongWrong, LooseWhereHard, MeanOfItsOwn, apo_asymmetric
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, SeqMeanTokenMean, TokenMean
from policyopt.parts.regularizer.kl import KL
from policyopt.rows import Batch
from tests.batches import gradients, random_batch, ready
from tests.methods.shared_credit import outcomes, same


def lengths(right: list[float], tokens: list[float], groups: list[int]) -> Batch:
    return outcomes(right, groups).replace(true_length=torch.tensor(tokens, dtype=torch.float64))


def test_only_wrong_answers_longer_than_the_right_ones_count_more() -> None:
    batch = lengths([1, 1, 0, 0, 0, 0, 1, 1], [4, 8, 5, 7, 9, 90, 3, 99], [4, 2, 2])
    weight = LongWrong(base=2.0)(batch)
    assert weight.tolist() == pytest.approx([1, 1, 1, 1.5, 1, 1, 1, 1])
    long = LongWrong(base=2.0)(batch.replace(true_length=100 * batch.true_length))
    assert long[3] == pytest.approx(2.0)
    assert LongWrong(base=1.0)(batch).tolist() == [1] * 8
    credit = ready(apo_asymmetric(base=2.0, kl_coef=0.0), batch).advantage[:4, 0]
    assert credit.sum() < -0.1, "they no longer add up to 0"


def test_good_rows_are_held_less_where_prompts_are_hard() -> None:
    batch = random_batch(groups=(4, 4))
    batch = batch.replace(advantage=batch.mask)
    at = [
        float(LooseWhereHard()(batch.replace(pass_rate=torch.full((8,), p)))[0])
        for p in (0.0, 1e-6, 0.25, 0.999999, 1.0)
    ]
    assert at == pytest.approx([1, 0, 1 - math.exp(-math.e / 4), 1 - math.exp(-math.e), 1], abs=1e-4)
    bad = batch.replace(advantage=-batch.mask, pass_rate=torch.full((8,), 0.25))
    assert LooseWhereHard()(bad).tolist() == [1] * 8


def test_with_equal_weights_it_is_grpo_and_the_kl_has_a_mean_of_its_own() -> None:
    batch = random_batch()
    batch = batch.replace(pass_rate=torch.ones(9, dtype=torch.float64))
    one = Normalise(eps=1e-9)
    same(apo_asymmetric(base=1.0, kl_coef=0.0), grpo(kl_coef=0.0).replace(aggregate=TokenMean(), advantage=one), batch)
    nothing = batch.replace(reward=0 * batch.reward)
    same(apo_asymmetric(kl_coef=0.04), grpo().replace(aggregate=SeqMeanTokenMean()), nothing)
    loose = batch.replace(pass_rate=group_mean(batch.correct, batch.group))
    recipe = apo_asymmetric(kl_coef=0.04)
    tight = recipe.replace(regularizers=(MeanOfItsOwn(inner=KL(coef=0.04)),))
    (loss, _), (other, _) = gradients(recipe, ready(recipe, loose)), gradients(tight, ready(tight, loose))
    assert loss < other
