"""What cases call things in ExPO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.lens.given import CHOICES
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.registry import get_method

from ._scripted import both, with_targets
from .tulu3 import preference

HERE = Path(__file__).parent

COLUMNS = {"origin": ("origin", "row")}


def _aggregate(name: str) -> dict[str, Any]:
    return {"aggregate.inner": CHOICES["aggregate"][1][name]()}


def _mean(name: str) -> dict[str, Any]:
    if name != "sequence-sum, mean over prompts":
        raise ValueError(f"sft_norm {name!r}: the library sums over tokens and takes the mean over prompts")
    return {}


PARAMS = {
    "agg": _aggregate,
    "adv_eps": "advantage.inner.eps",
    "ddof": "advantage.inner.ddof",
    "sft_norm": _mean,
}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """GRPO on its rows, and one self-explanation for each prompt."""
    run = Run(get_method("expo"), "other", with_targets(given, "expl", list(dict.fromkeys(given["group"]))), HERE)
    loss, gradient = run.result
    logp, explained = both(gradient["logp"], given, "expl")
    advantage = row_credit(run.credited)[: len(given["mask"])]
    return {"advantage": advantage, "loss": loss, "dloss_dlogp": logp, "dloss_dexpl_logp": explained}


CASES = {"loss": _loss, "preference_loss": preference}
