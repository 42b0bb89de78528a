"""What cases call things in GTPO."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.credit.gtpo import ConflictFree, conflicts, mean_entropy


def _part(run: Run) -> ConflictFree:
    found: ConflictFree = run.recipe.advantage  # type: ignore[assignment]
    return found


def _gain(run: Run) -> Tensor:
    return _part(run).of(run.batch).sum(-1) / run.batch.mask.sum(-1).clamp(min=1)


def _conflict(run: Run) -> Tensor:
    forward, backward = conflicts(_gain(run), run.batch)
    return (forward | backward).double()


COLUMNS = {"token_ids": ("tokens", "token"), "entropy": ("sampled_entropy", "token")}
KEYS = {
    "conflict": _conflict,
    "lambda": lambda run: _part(run).factor(_gain(run), run.batch) * run.batch.mask,
    "mean_entropy": lambda run: mean_entropy(run.batch),
    "delta": lambda run: _part(run).gate(run.batch),
    "advantage": lambda run: _part(run).gated(_gain(run), run.batch),
}
