"""What cases call things in Guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run
from policyopt.objective import credit, selected, token_gradients
from policyopt.parts.contrast import row_credit
from policyopt.registry import get_method

COLUMNS = {"guided": ("source", "row")}
PARAMS = {"agg": "aggregate", "adv_eps": "advantage.eps", "ddof": "advantage.ddof"}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rows that go on to the update, and their loss."""
    run = Run(get_method("guide"), "mask", given)
    batch = credit(run.recipe, run.batch)
    used = selected(run.recipe, batch)
    loss, gradient = token_gradients(run.recipe, batch[used], {"logp": batch.logp[used]})
    every = batch.logp.new_zeros(batch.logp.shape)
    every[used] = gradient["logp"]
    return {
        "used_row": used.double(),
        "advantage": row_credit(batch) * used,
        "loss": loss,
        "dloss_dlogp": every,
    }


CASES = {"loss": _loss}
