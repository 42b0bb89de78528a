"""The page of pass-at-k."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from policyopt.methods.credit.pass_at_k import MaxAtK, PassAtK, pass_at_k
from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise
from tests.batches import random_batch
from tests.methods.shared_credit import expected_gradient, outcomes, same

# Pass@k --------------------------------------------------------------------------------------------------------------


def subsets(n: int, k: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(n), k))


@pytest.mark.parametrize(("n", "c", "k"), [(5, 1, 2), (6, 3, 4), (4, 1, 4), (8, 2, 3), (5, 4, 2), (5, 0, 3), (4, 4, 2)])
def test_pass_at_k_is_grpo_over_all_subsets(n: int, c: int, k: int) -> None:
    right = [1.0] * c + [0.0] * (n - c)
    best = {s: max(right[i] for i in s) for s in subsets(n, k)}
    mean = sum(best.values()) / len(best)
    std = math.sqrt(mean * (1 - mean))
    wanted = []
    for i in range(n):  # a response is worth what the subsets that it is in are worth on average
        mine = [(x - mean) / (std + 1e-6) for s, x in best.items() if i in s]
        wanted.append(sum(mine) / len(mine))
    got = PassAtK(k=k)(outcomes(right))[:, 0]
    torch.testing.assert_close(got.tolist(), wanted, rtol=1e-9, atol=1e-9)
    assert float(got.sum()) == pytest.approx(0, abs=1e-9)
    if c == 0 or n - c < k:
        assert not got.any()


def test_pass_at_one_is_grpo() -> None:
    batch = random_batch().replace(reward=random_batch().correct)
    torch.testing.assert_close(PassAtK(k=1)(batch), Normalise(ddof=0)(batch), rtol=1e-12, atol=1e-15)
    recipe = pass_at_k(k=1, kl_coef=0.1)
    same(recipe, grpo(kl_coef=0.1).replace(shape=recipe.shape, advantage=Normalise(ddof=0)), random_batch())


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_max_at_k_is_the_sum_over_all_subsets(k: int) -> None:
    rewards, groups = [0.2, 0.9, 0.5, 0.7, 0.1, 0.5, -0.3, 0.4], (5, 3)
    plain, less = (MaxAtK(k=k, leave_one_out=x).weights(outcomes(rewards, groups)).tolist() for x in (False, True))
    start = 0
    for n in groups:
        mine = rewards[start : start + n]
        every = subsets(n, min(k, n))
        for i in range(n):
            with_i = [s for s in every if i in s]
            best = sum(max(mine[j] for j in s) for s in with_i) / len(every)
            others = sum(max((mine[j] for j in s if j != i), default=0.0) for s in with_i) / len(every)
            assert plain[start + i] == pytest.approx(best, abs=1e-12)
            assert less[start + i] == pytest.approx(best - others, abs=1e-12)
        start += n


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize(("p", "k"), [(0.3, 2), (0.7, 3), (0.2, 5)])
def test_max_at_k_has_the_gradient_of_pass_at_k(leave_one_out: bool, p: float, k: int) -> None:
    part = MaxAtK(k=k, leave_one_out=leave_one_out)
    assert expected_gradient(part.weights, p, 5) == pytest.approx(k * (1 - p) ** (k - 1), rel=1e-12)


def test_max_at_k_of_the_whole_group_trains_the_best_alone() -> None:
    advantage = pass_at_k(k=4, form="pkpo-loo").advantage(outcomes([0.1, 0.9, 0.3, 0.6]))[:, 0]
    torch.testing.assert_close(advantage.tolist(), [0.0, 4 * (0.9 - 0.6), 0.0, 0.0])


def test_the_best_response_over_the_spread_of_its_group() -> None:
    """verl's ``grpo_passk``: the best minus the second best over the deviation, times the number of rows."""
    batch = outcomes([0.1, 0.9, 0.3, 0.6, 0.2, 0.2, 0.7], [4, 3])
    found = pass_at_k(k=4, form="pkpo-loo", scale="group").advantage(batch)[:, 0]
    first, second = torch.tensor([0.1, 0.9, 0.3, 0.6]).double(), torch.tensor([0.2, 0.2, 0.7]).double()
    wanted = [0, 4 * 0.3 / (first.std() + 1e-6), 0, 0, 0, 0, 3 * 0.5 / (second.std() + 1e-6)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    even = pass_at_k(form="pkpo-loo", scale="group").advantage(outcomes([0.5] * 4))
    assert not even.any()
    with pytest.raises(ValueError, match='scale is "group", but form "passk"'):
        pass_at_k(scale="group")
