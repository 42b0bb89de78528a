"""What cases call things in Critique-GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.items import Verdict
from policyopt.methods.guidance.critique_grpo import pick

COLUMNS = {"refined": ("origin", "row")}
PARAMS = {"agg": None, "L_max": "loss_norm", "adv_eps": "advantage.eps", "ddof": "advantage.ddof"}


def _pick(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which refinement of each group is taken, where a score of 1 is right."""
    groups = [[Verdict(s, s == 1, True, "") for s in scores] for scores in given["refinement_score"]]
    picked = [pick(verdicts) for verdicts in groups]
    right = [float(verdicts[i].correct) for verdicts, i in zip(groups, picked, strict=True)]
    return {"picked": picked, "correct": right}


CASES = {"sampler": _pick}
