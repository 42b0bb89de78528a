"""What several tests of methods share: methods that steer exploration: their limits, what a right implementation shows, and entropy held at a target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from policyopt import methods as po
from policyopt.parts import PPOClip, TokenMean
from policyopt.recipe import Recipe

SEEDS = pytest.mark.parametrize("seed", range(3))


def logits(seed: int = 0, m: int = 7, v: int = 5) -> Tensor:
    return 1.5 * torch.randn(m, v, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def over_vocabulary(statistic: Any, z: Tensor, others: dict[str, Tensor] | None = None) -> Tensor:
    """The statistic of every token of the vocabulary at every position, [M, V]."""
    ids = torch.arange(z.shape[1])
    columns = [statistic(z, i.expand(len(z)), others or {}) for i in ids]
    return torch.stack(columns, dim=1)


# Methods in their limits ---------------------------------------------------------------------------------------------


def token_mean_grpo(**clip: Any) -> Recipe:
    return po.grpo(kl_coef=0.0).replace(aggregate=TokenMean(), surrogate=PPOClip(**clip))
