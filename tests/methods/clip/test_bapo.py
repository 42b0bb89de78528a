"""The page of bapo."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from policyopt.methods.clip.bapo import BalancedBounds, bapo
from policyopt.methods.group.grpo import grpo
from policyopt.parts import TokenRatio
from tests.batches import random_batch, ready


def algorithm_1(
    pairs: list[tuple[float, float]], bounds: BalancedBounds, low: float, high: float
) -> tuple[float, float]:
    """The search, token by token."""

    def rho(low: float, high: float) -> float:
        plus = minus = 0.0
        for r, a in pairs:
            if bounds.measure == "gradient-share":
                plus += r * a if a > 0 and r <= high else 0.0
                minus += r * -a if a < 0 and r >= low else 0.0
            else:
                plus += min(r, high) * a if a > 0 else 0.0
                minus += max(r, low) * -a if a < 0 else 0.0
        if bounds.measure == "value-ratio":
            return plus / minus if minus else math.inf
        return plus / (plus + minus) if minus else 1.0

    if bounds.search == "paper":
        i = j = 0
        start_low, start_high = low, high
        while rho(low, high) < bounds.target and low + bounds.low_step <= bounds.low_max + 1e-9:
            if high + bounds.high_step <= bounds.high_max + 1e-9:
                j += 1
                high = start_high + j * bounds.high_step
            else:
                i += 1
                low = start_low + i * bounds.low_step
        return low, high
    while rho(low, high) < bounds.target and low < bounds.low_max - 1e-9:
        low = min(low + bounds.low_step, bounds.low_max)
    while rho(low, high) < bounds.target and high < bounds.high_max - 1e-9:
        high = min(high + bounds.high_step, bounds.high_max)
    return low, high


@pytest.mark.parametrize("search", ["paper", "code"])
@pytest.mark.parametrize("measure", ["gradient-share", "value-share", "value-ratio"])
def test_bounds_are_those_of_the_search(search: Any, measure: Any) -> None:
    ends = set()
    for seed in range(12):
        batch = ready(grpo(), random_batch(seed=seed, drift=0.6, gaps=True))
        now = BalancedBounds(measure=measure).rho(TokenRatio()(batch), batch, 0.6, 1.2)
        bounds = BalancedBounds(search=search, measure=measure, target=now - 0.004 + 0.01 * seed, low_max=0.87, high_max=1.97,
                                low_step=0.05, high_step=0.1)  # fmt: skip
        log_ratio, mine = TokenRatio()(batch), batch.mask.bool()
        tokens = list(zip(log_ratio.exp()[mine].tolist(), batch.advantage[mine].tolist(), strict=True))
        got = tuple(float(x) for x in bounds(0.4, 0.2, log_ratio, batch))
        assert got == pytest.approx(algorithm_1(tokens, bounds, 0.6, 1.2))
        ends.add(got)
    assert len(ends) > 2


def test_the_search_of_bapo_without_good_or_without_bad_tokens() -> None:
    batch = random_batch()
    good, bad = (batch.replace(advantage=sign * torch.ones_like(batch.mask)) for sign in (1.0, -1.0))
    bounds = BalancedBounds(low_max=0.9, high_max=3.0)
    assert [float(x) for x in bounds(0.4, 0.2, TokenRatio()(good), good)] == pytest.approx([0.6, 1.2])
    assert [float(x) for x in bounds(0.4, 0.2, TokenRatio()(bad), bad)] == pytest.approx([0.9, 3.0])
    found = bapo().surrogate.metrics(TokenRatio()(bad), bad)
    assert float(found["bounds/low"][0, 0]) == pytest.approx(0.9)
    assert float(found["bounds/rho"][0, 0]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_wider_bounds_never_lower_the_share_of_good_gradient(seed: int) -> None:
    batch = ready(grpo(), random_batch(seed=seed, drift=0.6))
    log_ratio, bounds = TokenRatio()(batch), BalancedBounds()
    by_high = [bounds.rho(log_ratio, batch, 0.6, 1.2 + 0.1 * k) for k in range(15)]
    by_low = [bounds.rho(log_ratio, batch, 0.6 + 0.02 * k, 1.2) for k in range(15)]
    assert by_high == sorted(by_high)
    assert by_low == sorted(by_low)
    assert by_high[0] < by_high[-1] or by_low[0] < by_low[-1]
