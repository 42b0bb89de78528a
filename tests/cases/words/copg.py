"""What the cases of copg call things."""

from __future__ import annotations

from policyopt.objective import objective

KEYS = {
    "loss_squared_form": lambda run: objective(run.loss_recipe.set("surrogate.link.square", True), run.credited),
}
