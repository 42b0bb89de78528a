"""What the cases of hypo call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run
from policyopt.objective import objective

from ._pairs import gradient_of, told

SAMPLES = ("logp", "ref_logp", "mask")


def _both(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs, and after them what the policy wrote to the same prompts."""
    batch = told(given)
    width = max(len(row) for name in SAMPLES for row in (*batch[name], *given[name]))
    for name in SAMPLES:
        batch[name] = [[*row, *[0.0] * (width - len(row))] for row in (*batch[name], *given[name])]
    n = len(given["group"])
    batch["group"] = [*batch["group"], *given["group"]]
    batch["origin"] = [*batch["origin"], *[1.0] * n]
    return batch | {name: [*batch[name], *[0.0] * n] for name in ("reward", "chosen")}


def _samples(run: Run, x: Any) -> Any:
    """Of all rows those that the policy wrote."""
    return x[2 * len(run.asked["chosen_mask"]) :]


def _gradient(run: Run) -> list[list[float]]:
    found = _samples(run, run.gradient("logp"))
    return [x[: len(row)].tolist() for x, row in zip(found, run.asked["mask"], strict=True)]


GIVEN = {"loss": _both, "preference_loss": _both}
PARAMS = {"lambda": "kl_coef"}
KEYS = {
    "dpo_loss": lambda run: objective(run.loss_recipe.replace(regularizers=()), run.credited),
    "kl_mean": lambda run: _samples(run, run.part("regularizers.SampledKL").cost(run.credited)).mean(),
    "kl_rloo_advantage": lambda run: _samples(run, run.part("regularizers.SampledKL").advantage(run.credited)),
    "dloss_dchosen_logp": gradient_of("chosen", 0),
    "dloss_drejected_logp": gradient_of("rejected", 1),
    "dloss_dlogp": _gradient,
}
