"""What several tests of methods share: methods that change the ratio, its bounds, or what happens outside them: limits, and facts of their papers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from policyopt.parts import TokenRatio
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch
from tests.batches import gradients, ready


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def dlogp(recipe: Recipe, batch: Batch) -> Tensor:
    return gradients(recipe, ready(recipe, batch))[1]["logp"]


def tokens(ratio: list[float], advantage: list[float]) -> Batch:
    """One row of tokens with these ratios and advantages; old probabilities 1/2."""
    log_ratio = torch.tensor([ratio], dtype=torch.float64).log()
    old = torch.full_like(log_ratio, math.log(0.5))
    return make_batch(
        mask=torch.ones_like(old),
        logp=old + log_ratio,
        old_logp=old,
        advantage=torch.tensor([advantage], dtype=torch.float64),
    )


def token_gradient(part: Any, batch: Batch) -> list[float]:
    """dl/dlogp of each token of the only row, for surrogates that couple no tokens."""
    logp = batch.logp.detach().clone().requires_grad_()
    moved = batch.replace(logp=logp)
    return torch.autograd.grad(part(TokenRatio()(moved), moved).sum(), logp)[0][0].tolist()


def same_sampler(batch: Batch) -> Batch:
    return batch.replace(rollout_logp=batch.old_logp)
