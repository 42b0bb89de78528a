"""What cases call things in MADPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run

from ._pairs import keys, told

COLUMNS = {"score": ("score", "row")}
GIVEN = {"preference_loss": lambda given: told(given, numbers={"score": "{}_reward"})}
PARAMS = {"lambda": "lam"}


def weighed(of: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[[Run], Tensor]:
    """Something about the weight of each pair, from the part, its margin h and its weight."""

    def found(run: Run) -> Tensor:
        pairs = run.part("surrogate").choose(run.credited)
        part = run.part("surrogate.weight")
        return of(part, part.gap(run.credited, *pairs), part(run.credited, *pairs))

    return found


KEYS = keys() | {
    "margin": weighed(lambda part, h, u: h),
    "coef": weighed(lambda part, h, u: part.factor(h)),
    "weight": weighed(lambda part, h, u: u),
}
