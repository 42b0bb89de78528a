"""What the cases of mdpo call things."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.objective import token_gradients
from policyopt.recipe import Recipe
from policyopt.rows import masked_mean

from ._scheduled import scheduled

PARAMS = {"t0": "step_size", "total_iterations": "iterations", "iteration": None}


def now(run: Run) -> Recipe:
    """The recipe at the iteration of the case."""
    return scheduled(run.loss_recipe, run.params["iteration"])


KEYS = {
    "step_size": lambda run: 1 / now(run).get("regularizers.Proximal.coef"),
    "kl_estimate": lambda run: masked_mean(
        run.part("regularizers.Proximal").metrics(run.credited)["proximal/kl-new-old"], run.credited.mask
    ),
    "loss": lambda run: token_gradients(now(run), run.credited, {"logp": run.credited.logp})[0],
    "dloss_dlogp": lambda run: token_gradients(now(run), run.credited, {"logp": run.credited.logp})[1]["logp"],
}
