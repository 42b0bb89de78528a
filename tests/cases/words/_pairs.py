"""Pairs of texts, as cases give them side by side: two rows of one group each, the chosen one with the higher reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.objective import objective

SIDES = ("chosen", "rejected")
TOKENS = {"logp": "{}_logp", "ref_logp": "ref_{}_logp", "mask": "{}_mask"}


def _padded(rows: Sequence[Sequence[float]], width: int) -> list[list[float]]:
    return [[*row, *[0.0] * (width - len(row))] for row in rows]


def told(
    given: Mapping[str, Any],
    third: str | None = None,
    tokens: Mapping[str, str] | None = None,
    numbers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A case of pairs as a batch: all chosen rows, all rejected ones, then those of a ``third`` side (origin 1), one for each
    pair as far as they go.

    ``tokens`` and ``numbers`` are further columns [N, T] and [N], by their names in the batch: ``{"old_logp":
    "last_{}_logp"}``; a third side that has none is 0 there.
    """
    sides = (*SIDES, *([third] if third else []))
    width = max(len(row) for side in sides for row in given[f"{side}_mask"])
    counts = [len(given[f"{side}_mask"]) for side in sides]
    found: dict[str, Any] = {}
    for column, name in {**TOKENS, **(tokens or {})}.items():
        if name.format("chosen") not in given:
            continue
        found[column] = [
            row
            for side, n in zip(sides, counts, strict=True)
            for row in _padded(given.get(name.format(side), [[]] * n), width)
        ]
    for column, name in (numbers or {}).items():
        found[column] = [
            x for side, n in zip(sides, counts, strict=True) for x in given.get(name.format(side), [0.0] * n)
        ]
    found["group"] = [i for n in counts for i in range(n)]
    found["reward"] = [1.0] * counts[0] + [0.0] * (sum(counts) - counts[0])
    found["chosen"] = found["reward"]
    found["origin"] = [0.0] * (counts[0] + counts[1]) + [1.0] * sum(counts[2:])
    return found | {"params": given["params"]}


def gradient_of(side: str, at: int, leaf: str = "logp") -> Callable[[Run], list[list[float]]]:
    """dL/dleaf of the rows of a side, the ``at``-th of the batch, each as long as the case gives it."""

    def found(run: Run) -> list[list[float]]:
        pairs, rows = len(run.asked["chosen_mask"]), run.asked[f"{side}_mask"]
        gradient = run.gradient(leaf)[at * pairs :][: len(rows)]
        return [x[: len(row)].tolist() for x, row in zip(gradient, rows, strict=True)]

    return found


def preferences(run: Run) -> Tensor:
    """What the pairs alone lose, [P]."""
    part: Any = run.part("surrogate")
    loss: Tensor = part.losses(run.credited)[0]
    return loss


def alone(run: Run) -> list[float]:
    """The whole loss of each pair, as if there were no others."""
    group = run.credited.group
    return [float(objective(run.loss_recipe, run.credited[group == i])) for i in range(len(run.asked["chosen_mask"]))]


def keys(third: str | None = None, per_pair: Callable[[Run], Any] = alone) -> dict[str, Callable[[Run], Any]]:
    """What cases of pairs expect."""
    sides = (*SIDES, *([third] if third else []))
    return {"loss_per_pair": per_pair} | {f"dloss_d{side}_logp": gradient_of(side, i) for i, side in enumerate(sides)}


GIVEN = {"preference_loss": told}
"""The words of a method whose cases have nothing but pairs."""
KEYS = keys()
