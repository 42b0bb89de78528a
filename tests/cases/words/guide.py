"""What cases call things in Guide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.objective import credit, selected, token_gradients
from policyopt.parts import BySource
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.registry import get_method

HERE = Path(__file__).parent

COLUMNS = {"guided": ("origin", "row")}
PARAMS = {"agg": "aggregate"}
STATISTICS = {"adv_eps": "eps", "ddof": "ddof"}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rows that go on to the update, and their loss."""
    params = given["params"]
    run = Run(
        get_method("guide"), "mask", {**given, "params": {k: v for k, v in params.items() if k not in STATISTICS}}, HERE
    )
    recipe = run.recipe
    statistics = "advantage.inner" if isinstance(recipe.advantage, BySource) else "advantage"
    for name in STATISTICS.keys() & params.keys():
        recipe = recipe.set(f"{statistics}.{STATISTICS[name]}", params[name])
    batch = credit(recipe, run.batch)
    used = selected(recipe, batch)
    loss, gradient = token_gradients(recipe, batch[used], {"logp": batch.logp[used]})
    every = batch.logp.new_zeros(batch.logp.shape)
    every[used] = gradient["logp"]
    return {
        "used_row": used.double(),
        "advantage": row_credit(batch) * used,
        "loss": loss,
        "dloss_dlogp": every,
    }


CASES = {"loss": _loss}
