"""What cases call things in DRPO."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.objective import objective


def _objective(run: Run) -> Tensor:
    """J, what is maximised without the penalty."""
    return -objective(run.recipe.replace(regularizers=()), run.credited)


def _weight(run: Run) -> Tensor:
    """How much the score of each response counts in its prompt, [N]."""
    with torch.enable_grad():
        logp = run.credited.logp.detach().clone().requires_grad_()
        loss = objective(run.recipe.replace(regularizers=()), run.credited.replace(logp=logp))
        (gradient,) = torch.autograd.grad(loss, logp)
    return run.all_rows(-gradient.sum(1) * len(run.credited.group.unique()))


PARAMS = {"lambda": "lam", "L_max": "max_len"}
KEYS = {
    "discriminative_objective": _objective,
    "weight": _weight,
    "kl_old_new": lambda run: run.part("regularizers.TrustRegion").measured(run.credited),
}
