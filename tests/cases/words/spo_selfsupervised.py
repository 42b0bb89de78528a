"""What cases call things in SPO, the self-supervised one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run

from ._pairs import KEYS as PAIRS
from ._pairs import SIDES, preferences, told


def _logits(given: Mapping[str, Any], side: str) -> Tensor:
    return torch.tensor(given[f"{side}_degree_logits"], dtype=torch.float64)


def _graded(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs, and rows of one token each for the variants of either side: the degree, which a vocabulary of degrees has."""
    found = told(given)
    width, labels = len(found["mask"][0]), torch.tensor(given["degree_label"])
    rest = [0.0] * (width - 1)
    for origin, side in enumerate(SIDES, 1):
        logp = _logits(given, side).log_softmax(-1).gather(1, labels[:, None])[:, 0].tolist()
        found["logp"] += [[x, *rest] for x in logp]
        found["ref_logp"] += [[0.0, *rest] for _ in logp]
        found["mask"] += [[1.0, *rest] for _ in logp]
        found["group"] += [i // given["params"]["levels"] for i in range(len(logp))]
        for column, x in (("reward", 0.0), ("chosen", 0.0), ("origin", float(origin))):
            found[column] = [*found[column], *[x] * len(logp)]
    return found


def _degree_loss(side: str) -> Callable[[Run], Tensor]:
    def found(run: Run) -> Tensor:
        part = dataclasses.replace(run.part(f"regularizers.{side}"), coef=1.0)
        loss: Tensor = part(run.credited)
        return loss

    return found


def _by_logits(at: int) -> Callable[[Run], Tensor]:
    """The gradient by the logits of a side's degrees, through their log-probabilities."""

    def found(run: Run) -> Tensor:
        logits, labels = _logits(run.asked, SIDES[at]), torch.tensor(run.asked["degree_label"])
        pairs, count = len(run.asked["chosen_mask"]), len(labels)
        by_logp = run.gradient("logp")[2 * pairs + at * count :][:count, :1]
        return by_logp * (torch.nn.functional.one_hot(labels, logits.shape[1]) - logits.softmax(-1))

    return found


COLUMNS = {"origin": ("origin", "row"), "chosen": ("chosen", "row")}
PARAMS = {"levels": "source.levels"}
GIVEN = {"loss": _graded}
KEYS = {
    **PAIRS,
    "align_loss": lambda run: preferences(run).mean(),
    **{f"degree_loss_{side}": _degree_loss(side) for side in SIDES},
    **{f"dloss_d{side}_degree_logits": _by_logits(i) for i, side in enumerate(SIDES)},
}
