"""What several tests of methods share: soft gates, penalties, contrasts and off-policy methods: each in the limits where it is something known."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.methods.group.grpo import grpo
from policyopt.parts import Normalise, TokenMean
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import gradients

PLAIN = grpo(kl_coef=0.0)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def tokens(log_ratio: list[float], advantage: float | list[float] = 1.0) -> Batch:
    """One row that is credited, with the given log-ratios."""
    x = torch.tensor([log_ratio], dtype=torch.float64)
    a = torch.full_like(x, advantage) if isinstance(advantage, float) else x.new_tensor([advantage])
    zero = torch.zeros_like(x)
    return make_batch(
        mask=torch.ones_like(x), group=torch.zeros(1), logp=x, old_logp=zero, ref_logp=zero, advantage=a,
        reward=torch.zeros(1).double(),
    )  # fmt: skip


def slope(recipe: Recipe, batch: Batch) -> Tensor:
    """dL/dlogp of a batch that is credited already, for one row times its number of tokens."""
    recipe = recipe.replace(aggregate=TokenMean(), critic=None, advantage=Normalise(centre="none", scale="none"))
    return (gradients(recipe, batch)[1]["logp"] * batch.mask.sum())[0]


# Contrasts -----------------------------------------------------------------------------------------------------------


def scores(batch: Batch) -> list[float]:
    return ((batch.logp - batch.ref_logp) * batch.mask).sum(-1).tolist()
