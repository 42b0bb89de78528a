"""What several tests of methods share: divergences to a target, distillation, and the methods that come with a measurement."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.recipe import Recipe
from policyopt.rows import Batch
from tests.batches import gradients, random_batch, ready


def same(a: Recipe, b: Recipe, batch: Batch) -> None:
    """Loss and gradient of two recipes agree on a batch as it was drawn."""
    for x, y in zip(*(gradients(r, ready(r, batch)) for r in (a, b)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def binary(seed: int = 0) -> Batch:
    batch = random_batch(seed, gaps=True)
    return batch.replace(reward=batch.correct)


def distributions(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


# Posteriors ------------------------------------------------------------------------------------------------------------

PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


REWARD = torch.tensor([0.2, -0.4, 1.5, 0.9], dtype=torch.float64)
