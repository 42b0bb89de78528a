"""The objective of a recipe, and the token weights that are its gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.part import Critic, Filter, Regularizer
from policyopt.recipe import Recipe
from policyopt.rows import Batch, held
from policyopt.spans import span


@span("credit")
def credit(recipe: Recipe, batch: Batch) -> Batch:
    """The batch with ``advantage`` and, for recipes with a critic, ``returns``: statistics of the whole batch,
    without gradient."""
    with torch.no_grad():
        batch = batch.replace(advantage=advantages(recipe, batch))
        return batch.replace(returns=recipe.critic.target(batch)) if recipe.critic else batch


def advantages(recipe: Recipe, batch: Batch) -> Tensor:
    """[N, T]; 0 where the recipe credits nothing."""
    return torch.zeros_like(batch.mask) if recipe.advantage is None else recipe.advantage(batch)


def log_ratios(recipe: Recipe, batch: Batch) -> Tensor:
    """[N, T] the logarithm of the recipe's ratio, :func:`~policyopt.rows.held` so that its exponential and the gradient of that
    are finite; 0 where it has none."""
    return torch.zeros_like(batch.mask) if recipe.ratio is None else held(recipe.ratio(batch))


def shaped(recipe: Recipe, batch: Batch) -> Batch:
    """The batch with its reward shaped by the recipe."""
    for shape in recipe.shape:
        batch = shape(batch)
    return batch


def kept(recipe: Recipe, batch: Batch) -> Tensor:
    """Which rows the recipe's filters let through, boolean [N]."""
    return _all(recipe.filter, batch)


def selected(recipe: Recipe, batch: Batch) -> Tensor:
    """Which rows of a credited batch go on to the update, boolean [N]."""
    return _all(recipe.select, batch)


def _all(rules: tuple[Filter, ...], batch: Batch) -> Tensor:
    keep = torch.ones(batch.mask.shape[0], dtype=torch.bool, device=batch.mask.device)
    for rule in rules:
        keep &= rule(batch)
    return keep


def objective(recipe: Recipe, batch: Batch) -> Tensor:
    r"""The loss of a batch, a scalar: :math:`\sum_{i,t} share_{i,t}\,(\prod_k weight^k\cdot surrogate + \sum_j regularizer^j + critic)_{i,t}`.

    Reads ``logp`` and whatever the recipe needs. Where ``share`` is set (made on the whole mini-batch) the result for
    a piece of the batch is that piece's part of the sum; otherwise the batch is taken as the whole.
    """
    share = recipe.aggregate(batch) if batch.share is None else batch.share
    log_ratio = log_ratios(recipe, batch)
    loss = torch.zeros_like(log_ratio) if recipe.surrogate is None else recipe.surrogate(log_ratio, batch)
    for weight in recipe.weight:
        loss = loss * weight(log_ratio, batch).detach()
    whole = torch.zeros((), dtype=loss.dtype, device=loss.device)
    terms: list[Regularizer | Critic] = [*recipe.regularizers, *filter(None, [recipe.critic])]
    for term in terms:
        found = term(batch)
        if found.dim() == 0:
            whole = whole + found
        else:
            loss = loss + found
    return (share * torch.where(batch.mask.bool(), loss, 0.0)).sum() + whole


@span("objective")
def token_gradients(recipe: Recipe, batch: Batch, leaves: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The loss, and its gradient with respect to each leaf ([N, T]: ``logp``, ``entropy``, ``value``, live statistics
    by key).

    The gradient with respect to ``logp`` is minus the token weight: :math:`\nabla L = -\sum_{i,t} w_{i,t}\nabla\log\pi(y_{i,t})`.
    """
    mask = batch.mask.bool()
    with torch.enable_grad():
        free = {name: x.detach().requires_grad_() for name, x in leaves.items()}
        # Padding may hold anything, infinities too: cut it off before it can turn a gradient into NaN.
        loss = objective(recipe, batch.with_leaves({name: torch.where(mask, x, 0.0) for name, x in free.items()}))
        if loss.grad_fn is None:  # nothing that the batch holds depends on the policy: no gradient
            return loss, {name: torch.zeros_like(x) for name, x in free.items()}
        found = torch.autograd.grad(loss, list(free.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(free.items(), found, strict=True)
    }
    return loss.detach(), gradients
