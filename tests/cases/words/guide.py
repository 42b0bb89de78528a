"""What cases call things in Guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.objective import log_ratios


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    """A response is right where it has a reward; guided rows are clipped where nothing says that they are shaped."""
    return {**given, "correct": given["reward"], "params": {"guided": "clipped", **given["params"]}}


def _gamma(run: Run) -> torch.Tensor:
    found = run.part("surrogate").threshold(log_ratios(run.recipe, run.credited), run.credited)
    return run.all_rows(torch.where(run.credited.origin > 0, found, 0.0))


def _weight(run: Run) -> torch.Tensor:
    """The ratio, or what it is shaped to."""
    batch = run.credited
    log_ratio = log_ratios(run.recipe, batch)
    shaped = run.part("surrogate").shaped(log_ratio, batch)
    return run.all_rows(torch.where(batch.origin[:, None] > 0, shaped, log_ratio.exp()) * batch.mask)


GIVEN = {"loss": _judged}
COLUMNS = {"guided": ("origin", "row")}
PARAMS = {
    "gamma_quantile": "surrogate.quantile",
    "gamma_min": "surrogate.least",
    "gamma_scope": "surrogate.scope",
}
KEYS = {"used_row": lambda run: run.used.double(), "gamma": _gamma, "weight": _weight}
