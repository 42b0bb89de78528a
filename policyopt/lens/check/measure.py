"""From a recipe to numbers: batches for it, its token weights, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.random_batch import declared, random_batch, rescored
from policyopt.objective import credit, kept, selected, shaped, token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import Batch

SEEDS = (0, 1, 2)


def batch_for(recipe: Recipe, seed: int, **shape: Any) -> Batch:
    """A random batch with the columns that the recipe asks for and no others, and what its memory would hold.

    It has three groups of the size that the recipe draws, 4 to 8, the last of them one smaller.
    """
    size = group_size(recipe)
    shape = {"groups": (size, size, size - 1), **shape}
    batch = random_batch(seed, **shape, live=recipe.live, fixed=recipe.fixed, needs=recipe.needs)
    if recipe.memory is not None:
        new = torch.full((len(batch.mask), recipe.memory.width), torch.nan, dtype=torch.float64)
        groups = (4,) * (int(batch.group.max()) + 1)
        earlier = random_batch(seed + 1000, groups=groups, fixed=recipe.fixed, needs=recipe.needs)
        earlier = earlier.replace(history=new[:1].expand(len(earlier.mask), -1))
        with torch.no_grad():
            past = recipe.memory(credit(recipe, shaped(recipe, declared(earlier, recipe.needs | {"history"}))))
        past = torch.stack([past[earlier.group == g][0] for g in batch.group])
        batch = batch.replace(history=torch.where((batch.group == batch.group.max())[:, None], new, past))
    return declared(batch, recipe.needs | ({"history"} if recipe.memory else frozenset()))


def group_size(recipe: Recipe) -> int:
    """How many responses answer a prompt in the batches that the recipe is measured on."""
    return min(max(recipe.source.size, 4), 8)


def draws(recipe: Recipe, **shape: Any) -> Iterator[Batch]:
    """The random batches that properties are measured on."""
    return (batch_for(recipe, seed, **shape) for seed in SEEDS)


def on_policy(batch: Batch) -> Batch:
    """The same batch before the policy has moved: every ratio is 1."""
    return sampled_by(batch.replace(logp=batch.old_logp), batch.old_logp)


def sampled_by(batch: Batch, old_logp: Tensor) -> Batch:
    """The batch with ``old_logp`` [N, T], and the same for the sampler and at the start of the updates."""
    names = [name for name in ("rollout_logp", "prox_logp") if getattr(batch, name) is not None]
    return batch.replace(**dict.fromkeys(["old_logp", *names], old_logp))


def prepared(recipe: Recipe, batch: Batch) -> tuple[Batch, Tensor]:
    """The batch as the objective takes it (rewards shaped, rows filtered, credit given, rows selected), and which rows
    are left, boolean [N]."""
    batch = shaped(recipe, rescored(batch, recipe.live, recipe.fixed))
    keep = kept(recipe, batch)
    batch = credit(recipe, batch[keep])
    chosen = selected(recipe, batch)
    keep[keep.clone()] = chosen
    return batch[chosen], keep


def leaves(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """What carries the gradient: ``logp``, the other leaf columns that are there, and the live statistics."""
    columns = {name: getattr(batch, name) for name in ("logp", "entropy", "value")}
    found = {name: x for name, x in columns.items() if x is not None}
    return found | {s.key: batch.stat(s) for s in recipe.live}


def gradients(recipe: Recipe, ready: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a prepared batch and its gradient with respect to every leaf."""
    return token_gradients(recipe, ready, leaves(recipe, ready))


def weights(recipe: Recipe, batch: Batch) -> Tensor:
    """The token weights w = -dL/dlogp [N, T] of a batch as it was drawn; 0 on the rows that a filter dropped."""
    ready, keep = prepared(recipe, batch)
    found = torch.zeros_like(batch.mask)
    if keep.any():
        found[keep] = token_weights(recipe, ready)
    return found


def token_weights(recipe: Recipe, ready: Batch) -> Tensor:
    """The token weights w = -dL/dlogp [N, T] of a prepared batch."""
    return -gradients(recipe, ready)[1]["logp"]


def policy_part(recipe: Recipe) -> Recipe:
    """The recipe without its regularisers, unless they are all that it has.

    A critic stays: its loss does not touch ``logp``.
    """
    alone = recipe.replace(regularizers=(), controllers=())
    return alone if any(weights(alone, batch).any() for batch in draws(alone)) else recipe


def deviation(got: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors over the largest number in them; 0 where both are 0."""
    scale = max(float(got.abs().max()), float(wanted.abs().max())) if got.numel() else 0.0
    return float((got - wanted).abs().max()) / scale if scale else 0.0
