"""What cases call things in SRPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyopt.lens.case import Run

from ._pairs import SIDES, alone, gradient_of, told

COLUMNS = {"chosen": ("chosen", "row"), "origin": ("origin", "row")}
REFINED = ("w_l", "l_w", "w_w", "l_l")
"""What is written and what it was to improve on, by origin, from 1."""


def _given(given: Mapping[str, Any]) -> dict[str, Any]:
    """A pair and its four refinements as rows; of these the case has the sums, so each is one token."""
    found = told(given)
    pairs, width = len(given["chosen_mask"]), len(found["mask"][0])
    tokens = {"mask": [1.0] * pairs, "logp": "refine_logp_{}", "ref_logp": "ref_refine_logp_{}"}
    for name, of in tokens.items():
        sums = [x for pair in REFINED for x in (given[of.format(pair)] if isinstance(of, str) else of)]
        found[name] = [*found[name], *([x, *[0.0] * (width - 1)] for x in sums)]
    p = given.get("pref", [1.0] * pairs)
    sides = {"w": [float(x) for x in p], "l": [1.0 - x for x in p]}
    found["reward"] = [*sides["w"], *sides["l"], *(x for pair in REFINED for x in sides[pair[0]])]
    found["chosen"] += [float(pair[0] == "w") for pair in REFINED for _ in range(pairs)]
    found["origin"] += [float(i) for i in range(1, 5) for _ in range(pairs)]
    found["group"] += [i for _ in REFINED for i in range(pairs)]
    return found


def _gradient_of(at: int) -> Callable[[Run], list[float]]:
    def found(run: Run) -> list[float]:
        pairs = len(run.asked["chosen_mask"])
        return [float(x) for x in run.gradient("logp")[at * pairs :][:pairs, 0]]

    return found


GIVEN = {"preference_loss": _given}
KEYS = {
    "loss_per_pair": alone,
    **{f"dloss_d{side}_logp": gradient_of(side, i) for i, side in enumerate(SIDES)},
    **{f"dloss_drefine_logp_{pair}": _gradient_of(2 + i) for i, pair in enumerate(REFINED)},
}
