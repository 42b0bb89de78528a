"""What the cases of remix call things."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.methods.offpolicy.remix import remix
from policyopt.objective import token_gradients
from policyopt.recipe import Recipe

from ._scheduled import scheduled

COLUMNS = {"prox_logp": ("prox_logp", "token"), "prev_logp": ("prev_logp", "token")}
PARAMS = {"beta": "kl_coef", "step": None}


def now(run: Run) -> Recipe:
    """The recipe at the step of the case."""
    return scheduled(run.loss_recipe, run.params["step"])


def share(step: float) -> float:
    """lambda, the share of the reference in the KL, at a step."""
    coef: float = scheduled(remix(kl_coef=1.0), step).get("regularizers.reference.coef")
    return coef


KEYS = {
    "lam": lambda run: share(run.params["step"]),
    "loss": lambda run: token_gradients(now(run), run.credited, {"logp": run.credited.logp})[0],
    "dloss_dlogp": lambda run: token_gradients(now(run), run.credited, {"logp": run.credited.logp})[1]["logp"],
}
CASES = {"schedule": lambda given: {"lam": [share(step) for step in given["step"]]}}
