"""Batches of pairs for the tests of preference methods."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.objective import credit, token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import Batch, make_batch


def pairs(lengths: list[tuple[int, int]], seed: int = 0, third: int = 0) -> Batch:
    """Rows chosen, rejected, chosen, ... in float64, of so many tokens each; with a third row of origin 1 where asked."""
    sizes = [n for pair in lengths for n in ((*pair, third) if third else pair)]
    per = 3 if third else 2
    g = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).double()
    side = torch.tensor([1.0, 0.0, 0.0][:per] * len(lengths)).double()

    def logp() -> Tensor:
        return -2 * torch.rand(mask.shape, generator=g, dtype=torch.float64)

    return make_batch(
        mask=mask, logp=logp(), ref_logp=logp(), old_logp=logp(), reward=side, chosen=side,
        group=torch.arange(len(lengths)).repeat_interleave(per),
        origin=torch.tensor([0, 0, 1][:per] * len(lengths)),
    )  # fmt: skip


def worked(recipe: Recipe, batch: Batch) -> tuple[float, Tensor]:
    """The loss, and its gradient with respect to the log-probabilities."""
    loss, found = token_gradients(recipe, credit(recipe, batch), {"logp": batch.logp})
    return float(loss), found["logp"]


def swapped(batch: Batch) -> Batch:
    """The same texts with the labels the other way round."""
    return batch.replace(reward=1 - batch.reward, chosen=1 - batch.reward)
