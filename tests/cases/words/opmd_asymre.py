"""What the cases of opmd-asymre call things."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.parts import ClipMask


def keep_mask(run: Run) -> Tensor:
    """The tokens that the recipe's mask lets through."""
    masks = [weight(run.log_ratio, run.credited) for weight in run.recipe.weight if isinstance(weight, ClipMask)]
    found: Tensor = run.credited.mask * masks[0] if masks else run.credited.mask
    return found


KEYS = {"keep_mask": keep_mask}
