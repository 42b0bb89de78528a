"""What the cases of aligndistil call things."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run

COLUMNS = {
    "student_logits": ("policy", "logits"),
    "dpo_logits": ("teacher", "logits"),
    "reverse_dpo_logits": ("reference", "logits"),
}
PARAMS = {"weight_floor": "floor"}


def others(run: Run) -> dict[str, Tensor]:
    """The logits of the two models that the target is made of, token by token."""
    return {role: run.logits[role].flatten(0, 1) for role in ("teacher", "reference")}


KEYS = {
    "weight": lambda run: (
        run.part("regularizers.DistributionLoss").of.weight(others(run)).view_as(run.batch.mask) * run.batch.mask
    ),
    "teacher_logp": lambda run: (
        run.part("regularizers.DistributionLoss").of.extrapolated(others(run)).view_as(run.logits["teacher"])
    ),
    "token_loss": lambda run: run.part("regularizers.DistributionLoss")(run.batch) * run.batch.mask,
}
