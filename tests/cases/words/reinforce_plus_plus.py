"""What cases call things in REINFORCE++."""

from __future__ import annotations

from torch import Tensor

from policyopt.lens.case import Run


def _before_whitening(run: Run) -> Tensor:
    """Rewards to go, or rewards minus the mean of their group."""
    return run.all_rows(run.recipe.set("advantage.whiten", "none").advantage(run.shaped[run.keep]))


KEYS = {"return": _before_whitening, "centred_reward": _before_whitening}
