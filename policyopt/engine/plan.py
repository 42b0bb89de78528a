"""How a mini-batch becomes a gradient, whatever runs the model: the plan that every engine carries out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from policyopt.models.likelihood import Leaves, Weigh
from policyopt.objective import log_ratios, token_gradients
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.recipe import Recipe
from policyopt.rows import BOUND, Batch, masked
from policyopt.spans import span

SELDOM = frozenset({"ratio/clamped"})
"""What the log says only where it happens."""


@dataclass
class UpdateReport:
    """What one optimiser step did."""

    loss: float
    grad_norm: float
    applied: bool
    """False where the loss or the gradient was not finite: nothing was changed."""
    weight: Tensor
    """[N, T] token weights w = -dL/dlogp of the mini-batch."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over tokens of what the log wants to know, and ``tokens``; ``mismatch/max`` is a maximum."""
    noise: tuple[float, float] | None = None
    """Where a part asks for "gradient noise": squared length of the true gradient and variance of this one, as far as its parts tell."""


def accumulate(
    recipe: Recipe, batch: Batch, pieces: Sequence[Tensor], *, version: int, whole: Callable[[Batch], Leaves],
    learn: Callable[[Batch, Weigh], None], split: bool = False,
) -> UpdateReport:  # fmt: skip
    r"""Work out the gradient of the objective on a mini-batch, the same one for any split into micro-batches.

    The objective is a function of the leaf ``logp`` [N, T] (and entropy, value), so its gradient is
    :math:`\sum_{i,t} \frac{\partial L}{\partial logp_{i,t}} \nabla\log\pi(y_{i,t})`: an engine gives leaves and takes
    weights. Where every part can be computed row by row, each micro-batch is passed once. Where rows are coupled
    (:attr:`~policyopt.recipe.Recipe.gathers`) and the batch does not fit at once, a first pass without gradient finds
    the whole leaf, and a second one pushes the token weights of the whole batch through the model.

    ``batch`` is the whole mini-batch, ``pieces`` the numbers [n] of the rows of each micro-batch that this process has
    (all of them, or a rank's share of them, which may be none: then ``split`` says that others have rows too). ``learn``
    passes a micro-batch with gradient: it works out its leaves, all at once or of some units after others, has each weighed
    once, and adds the gradient of the parameters that follows. ``whole`` gives the leaves
    of the batch without gradient, gathered from all ranks (the report is then of the whole batch, else of this process's
    rows). ``version`` counts the updates that the policy has seen.
    """
    batch = batch.replace(share=recipe.aggregate(batch))
    report = UpdateReport(0.0, 0.0, True, torch.zeros_like(batch.mask))
    gradients: Mapping[str, Tensor] | None = None
    if recipe.gathers and (split or len(pieces) > 1 or len(pieces[0]) < len(batch.mask)):
        found = whole(batch)
        loss, gradients = token_gradients(recipe, batch, found)
        observe(report, recipe, batch.with_leaves(found), loss, gradients["logp"], version)

    def weigh(
        numbers: Tensor, leaves: Leaves, rows: Tensor | None = None, within: Tensor | None = None
    ) -> Mapping[str, Tensor]:
        numbers = numbers if rows is None else numbers[rows]
        mask = batch.mask[numbers]
        here = mask if within is None else within.to(mask)
        if gradients is None:
            # What has no share in the loss has no gradient; the mask stays whole, for parts that look at lengths.
            piece = batch[numbers].replace(share=batch.share[numbers] * here)
            loss, mine = token_gradients(recipe, piece, leaves)
            seen = piece.replace(mask=here).with_leaves({name: x.detach() for name, x in leaves.items()})
            observe(report, recipe, seen, loss, mine["logp"], version)
        else:
            mine = {name: g[numbers] * here for name, g in gradients.items()}
        report.weight[numbers] -= mine["logp"].to(report.weight)
        return mine

    for numbers in pieces:
        learn(batch[numbers], Weigh(partial(weigh, numbers), recipe.unit if gradients is None else "token"))
    return report


@span("metrics")
@torch.no_grad()
def observe(report: UpdateReport, recipe: Recipe, piece: Batch, loss: Tensor, gradient: Tensor, version: int) -> None:
    """Add a piece of a mini-batch, with its leaves, to the sums that the log is made of."""
    mask, sums = piece.mask, report.sums
    weight = -gradient
    counted = (piece.share != 0).to(mask)  # averages are over the tokens that the aggregation counts
    found = {"tokens": counted} | {name: masked(x, counted) for name, x in said(recipe, piece).items()}
    found |= {"signal/positive": weight.clamp(min=0), "signal/negative": (-weight).clamp(min=0)}
    for name, inside in piece.members("span").items():
        found |= {f"span[{name}]/tokens": masked(inside, counted), f"span[{name}]/weight": masked(weight.abs(), inside)}
    drawn = piece.own() if piece.origin is None else piece.own() * (piece.origin == 0)[:, None]
    found |= {"moved/tokens": drawn, "moved/sum": masked(kl_estimate(piece.old_logp, piece.logp, "k3"), drawn)}
    fresh = (piece.version == version).to(mask)[:, None] * mask
    if piece.origin is not None:  # auxiliary rows may be scored at another temperature than they were drawn at
        fresh = fresh * (piece.origin == 0)[:, None]
    sampled = piece.old_logp if piece.rollout_logp is None else piece.rollout_logp
    gap = (piece.logp - sampled).abs() * fresh
    found |= {"mismatch/tokens": fresh, "mismatch/sum": gap}
    largest = gap.max() if gap.numel() else gap.sum()
    every = [loss, largest, *(masked(x, mask).sum() for x in found.values())]
    more, high, *numbers = torch.stack([x.double() for x in every]).tolist()  # all at once: a device is waited for once
    report.loss += more
    for name, x in zip(found, numbers, strict=True):
        if x or name not in SELDOM:
            sums[name] = sums.get(name, 0.0) + x
    sums["mismatch/max"] = max(sums.get("mismatch/max", 0.0), high)


def added(parts: Iterable[tuple[float, Mapping[str, float]]]) -> tuple[float, dict[str, float]]:
    """The loss and the sums of a mini-batch from those of its pieces."""
    whole, sums = 0.0, dict[str, float]()
    for loss, found in parts:
        whole += loss
        for name, x in found.items():
            old = sums.get(name, 0.0)
            sums[name] = max(old, x) if name == "mismatch/max" else old + x
    return whole, sums


def said(recipe: Recipe, piece: Batch) -> dict[str, Tensor]:
    """What the parts of the loss tell the log, name -> [N, T]."""
    log_ratio = log_ratios(recipe, piece)
    found = {"ratio/clamped": (log_ratio.abs() >= BOUND).to(log_ratio)}
    if recipe.surrogate is not None:
        found |= recipe.surrogate.metrics(log_ratio, piece)
    for weight in recipe.weight:
        found |= weight.metrics(log_ratio, piece)
    for regularizer in recipe.regularizers:
        found |= regularizer.metrics(piece)
    return found
