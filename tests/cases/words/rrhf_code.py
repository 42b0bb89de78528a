"""What cases call things in RRHF for code."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.objective import objective


def _alone(run: Run, path: str) -> float:
    """One of the two losses, without its coefficient."""
    recipe = run.loss_recipe
    other = recipe.replace(regularizers=()) if path == "surrogate" else recipe.replace(surrogate=None)
    return float(objective(other.set(f"{path}.coef", 1.0), run.credited))


KEYS = {
    "rank_loss": lambda run: _alone(run, "surrogate"),
    "tuning_loss": lambda run: _alone(run, "regularizers.Likelihood"),
}
