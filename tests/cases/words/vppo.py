"""What the cases of VPPO call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.credit.vppo import BlankedLines, dependency


def _without_penalty(given: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of the cases has no entropy penalty, unless they say how large it is."""
    return {**given, "params": {"penalty": 0.0} | given.get("params", {})}


GIVEN = {"loss": _without_penalty}
COLUMNS = {"perturbed_logp": (BlankedLines().column, "token")}
KEYS = {
    "dependency": lambda run: run.all_rows(dependency(run.credited, run.part("advantage").look)),
    "token_mask": lambda run: run.all_rows(run.part("weight.SelectedWeight").tokens(run.credited).double()),
    "trajectory_score": lambda run: run.part("advantage").score(run.shaped),
    "scale": lambda run: run.part("advantage").scale(run.shaped),
}
