"""What cases call things in OREO."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run

COLUMNS = {"values": ("value", "token")}
PARAMS = {"beta": ("surrogate.beta", "critic.beta"), "level": ("surrogate.action", "critic.action")}


def _policy_loss(run: Run) -> Tensor:
    """The squared residuals alone, without the critic's."""
    batch, recipe = run.credited, run.loss_recipe
    return (recipe.aggregate(batch) * recipe.surrogate(run.log_ratio, batch)).sum()


KEYS = {
    "residual": lambda run: run.part("surrogate").residual(run.credited),
    "loss": _policy_loss,
    "policy_loss": _policy_loss,
    "dvalue_loss_dvalues": lambda run: run.gradient("value"),
}
