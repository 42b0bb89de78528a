"""The advantage that normalises each component of the reward by itself (GDPO)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from policyopt.parts import Decoupled, Normalise
from policyopt.rows import Batch
from tests.tiny import token_batch

WEIGHTS = (("a", 1.0), ("b", 0.5))


def batch_with(**said: list[float]) -> Batch:
    columns = {f"component[{name}]": torch.tensor(x, dtype=torch.float64) for name, x in said.items()}
    return token_batch((4, 3)).replace(**columns)


def by_hand(batch: Batch, weights: tuple[tuple[str, float], ...], eps: float = 1e-6) -> Tensor:
    """[N] the formula, row by row."""
    total = [0.0] * len(batch)
    for name, weight in weights:
        x = batch.components()[name].tolist()
        for i, group in enumerate(batch.group.tolist()):
            mine = [x[j] for j, g in enumerate(batch.group.tolist()) if g == group and not math.isnan(x[j])]
            if not math.isnan(x[i]):
                mean = sum(mine) / len(mine)
                spread = math.sqrt(sum((y - mean) ** 2 for y in mine) / max(1, len(mine) - 1))
                total[i] += weight * (x[i] - mean) / (spread + eps)
    mean = sum(total) / len(total)
    spread = math.sqrt(sum((y - mean) ** 2 for y in total) / (len(total) - 1))
    return torch.tensor([(y - mean) / (spread + eps) for y in total], dtype=torch.float64)


@pytest.mark.parametrize("gone", [(), (1,), (0, 1, 2, 3), (4, 5, 6)])
def test_it_is_its_formula(gone: tuple[int, ...]) -> None:
    a, b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0.2, 0.9, 0.4, 0.1, 7.0, 8.0, 7.5]
    batch = batch_with(a=a, b=[math.nan if i in gone else x for i, x in enumerate(b)])
    found = Decoupled(weights=WEIGHTS)(batch)
    torch.testing.assert_close(found, by_hand(batch, WEIGHTS)[:, None] * batch.mask)


def test_combinations_of_one_sum_are_told_apart() -> None:
    """Summed up first, (1, 0) and (0, 1) are the same where spreads differ; by themselves they are not."""
    batch = batch_with(a=[1, 0, 1, 0, 0, 0, 0], b=[0, 1, 1, 1, 0, 0, 0])
    first, second = Decoupled(whiten=False)(batch)[:2, 0].tolist()
    assert batch.component("a")[0] + batch.component("b")[0] == batch.component("a")[1] + batch.component("b")[1]
    assert abs(first - second) > 0.1


def test_the_scale_of_a_component_does_not_matter_and_its_weight_does() -> None:
    a, b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0.2, 0.9, 0.4, 0.1, 7.0, 8.0, 7.5]
    plain, scaled = batch_with(a=a, b=b), batch_with(a=a, b=[1000 * x for x in b])
    part = Decoupled(inner=Normalise(eps=0.0), weights=WEIGHTS)
    torch.testing.assert_close(part(plain), part(scaled))
    assert not torch.allclose(part(plain), Decoupled(inner=Normalise(eps=0.0), weights=(("a", 1.0), ("b", 5.0)))(plain))


def test_without_components_the_reward_is_the_only_one() -> None:
    batch = token_batch((4, 3))
    torch.testing.assert_close(Decoupled(whiten=False)(batch), Normalise()(batch))
    with_components = batch_with(a=[1, 0, 1, 0, 0, 1, 0])
    torch.testing.assert_close(
        Decoupled(weights=(("reward", 1.0),), whiten=False)(with_components), Normalise()(with_components)
    )


def test_rewards_of_tokens_count_with_the_reward_alone() -> None:
    batch = batch_with(a=[1, 0, 1, 0, 0, 1, 0])
    penalised = batch.replace(token_reward=-batch.mask)
    torch.testing.assert_close(Decoupled()(penalised), Decoupled()(batch))
    weights = (("a", 1.0), ("reward", 1.0))
    assert not torch.allclose(Decoupled(weights=weights)(penalised), Decoupled(weights=weights)(batch))


def test_no_signal_is_no_advantage() -> None:
    batch = batch_with(a=[1.0] * 7, b=[math.nan] * 7)
    assert not Decoupled()(batch).any()


def test_it_reads_what_it_weighs() -> None:
    assert Decoupled(weights=(("a", 1.0), ("correct", 1.0), ("reward", 1.0))).needs == {"component[a]", "correct"}
    assert Decoupled().min_group == 2 and Decoupled().unit == "batch"
