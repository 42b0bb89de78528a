"""What every recipe must do whatever its formula is; a recipe that does not is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from policyopt.lens.check.derivative import TOLERANCE, derivative_error
from policyopt.lens.check.measure import batch_for, draws, gradients, leaves, prepared
from policyopt.lens.check.report import Finding
from policyopt.lens.random_batch import poisoned
from policyopt.objective import objective
from policyopt.part import Unit
from policyopt.recipe import Recipe
from policyopt.rows import Batch

EXACT = 1e-9
POISONS = (float("nan"), 1e6)


def everything(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """The loss and the gradient of every leaf [N, T] of a batch as it was drawn; 0 on dropped rows."""
    ready, keep = prepared(recipe, batch)
    found = {name: torch.zeros_like(x) for name, x in leaves(recipe, batch).items()}
    loss = torch.zeros((), dtype=batch.mask.dtype)
    if keep.any():
        loss, mine = gradients(recipe, ready)
        for name, x in mine.items():
            found[name][keep] = x
    return {"loss": loss} | found


def difference(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of each result; infinite where one is no number."""
    worst = 0.0
    for name, x in wanted.items():
        error = (got[name] - x).abs().max() / x.abs().max().clamp(min=1e-12)
        worst = max(worst, float(error.nan_to_num(nan=torch.inf)))
    return worst


def _finding(
    key: str, name: str, good: str, bad: str, number: float, limit: float = EXACT, note: str = "deviation"
) -> Finding:
    broken = not number <= limit
    return Finding(key, name, bad if broken else good, "no" if broken else "ok", number, note, broken)


def finite(recipe: Recipe) -> Finding:
    """Loss and gradients are numbers, on ordinary batches and where some responses have no token."""
    batches = [*draws(recipe, gaps=True), batch_for(recipe, 3, groups=(3, 2), lengths=(0, 4, 0, 2, 6))]
    bad = sum(not x.isfinite().all() for batch in batches for x in everything(recipe, batch).values())
    return _finding("finite", "loss and gradient are numbers", "yes", "no", float(bad), 0.0, "results are not")


def derivative(recipe: Recipe) -> Finding:
    """The gradient of every leaf is the derivative of the loss, its stop-gradients held fixed."""
    worst = 0.0
    for seed, drift in ((0, 0.3), (1, 0.3), (2, 4e-4)):
        ready, keep = prepared(recipe, batch_for(recipe, seed, groups=(4, 2), width=4, drift=drift, gaps=True))
        if keep.any():

            def loss(at: Mapping[str, Tensor], batch: Batch = ready) -> Tensor:
                return objective(recipe, batch.with_leaves(at))

            worst = max(worst, derivative_error(loss, leaves(recipe, ready), ready.mask))
    return _finding("derivative", "gradient is the derivative of the loss", "yes", "no", worst, TOLERANCE)


def padding(recipe: Recipe) -> Finding:
    """Two more columns of padding with NaN or a million in them change nothing, and get no gradient."""
    worst = 0.0
    for batch in draws(recipe, gaps=True):
        wanted = everything(recipe, batch).items()
        wide = {name: torch.nn.functional.pad(x, (0, 2)) if x.dim() == 2 else x for name, x in wanted}
        for poison in POISONS:
            worst = max(worst, difference(everything(recipe, poisoned(batch, poison, extra=2)), wide))
    return _finding("padding", "what stands on the padding", "no effect", "changes the result", worst)


def order(recipe: Recipe) -> Finding:
    """The rows in another order, and the prompts numbered otherwise, have the same gradients.

    It is no fault where only rows with equal rewards take turns: a method that ranks them must decide somehow.
    """
    worst = {"all different": 0.0, "0 or 1": 0.0}
    for batch in draws(recipe):
        shuffled = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(1))
        for rewards in worst:
            if rewards == "0 or 1":
                batch = batch.replace(reward=batch.reward.round())
            got = everything(recipe, batch.replace(group=40 - 7 * batch.group)[shuffled])
            wanted = {name: x[shuffled] if x.dim() else x for name, x in everything(recipe, batch).items()}
            worst[rewards] = max(worst[rewards], difference(got, wanted))
    found = _finding("order", "order of rows and prompts", "no effect", "changes the result", worst["all different"])
    if not found.broken and not worst["0 or 1"] <= EXACT:
        return Finding("order", found.name, "decides between equal rewards", "ties", worst["0 or 1"], "deviation")
    return found


def microbatches(recipe: Recipe) -> Finding:
    """The pieces that the recipe says it may be split into add up to the loss of the whole and have its gradients."""
    worst = 0.0
    for batch in draws(recipe, gaps=True):
        ready, keep = prepared(recipe, batch)
        if not keep.any():
            continue
        ready = ready.replace(share=recipe.aggregate(ready))
        loss, whole = gradients(recipe, ready)
        total = {name: torch.zeros_like(x) for name, x in ({"loss": loss} | whole).items()}
        for rows in pieces(recipe.unit, ready):
            part, found = gradients(recipe, ready[rows])
            total["loss"] += part
            for name, x in found.items():
                total[name][rows] = x
        worst = max(worst, difference(total, {"loss": loss} | whole))
    name = f"split into pieces of one {recipe.unit}"
    return _finding("micro", name, "no effect", "changes the gradient", worst)


def pieces(unit: Unit, batch: Batch) -> Iterator[Tensor]:
    """The rows of each of the smallest pieces that a batch may be split into; rows are never cut."""
    if unit == "batch":
        yield torch.arange(len(batch.mask))
    elif unit == "group":
        yield from ((batch.group == g).nonzero()[:, 0] for g in batch.group.unique())
    else:
        yield from torch.arange(len(batch.mask)).split(1)
