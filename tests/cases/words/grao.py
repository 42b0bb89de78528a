"""What cases call things in GRAO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.registry import get_method

from ._scripted import both, with_targets

HERE = Path(__file__).parent

COLUMNS = {"origin": ("origin", "row")}
PARAMS = {"adv_eps": "advantage.eps"}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Samples, and one reference for each prompt."""
    run = Run(get_method("grao"), "other", with_targets(given, "target", list(dict.fromkeys(given["group"]))), HERE)
    loss, gradient = run.result
    logp, target = both(gradient["logp"], given, "target")
    advantage, own = row_credit(run.credited), len(given["mask"])
    return {
        "advantage": advantage[:own],
        "target_advantage": advantage[own:],
        "loss": loss,
        "dloss_dlogp": logp,
        "dloss_dtarget_logp": target,
    }


CASES = {"loss": _loss}
