"""What cases call things in APO, the asymmetric one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.credit.apo_asymmetric import LooseWhereHard


def _judged(given: Mapping[str, Any]) -> dict[str, Any]:
    """The reward is the verdict, and the share of right answers follows from it."""
    right, group = given["correct"], given["group"]
    of = {g: [c for c, other in zip(right, group, strict=True) if other == g] for g in group}
    rate = [sum(of[g]) / len(of[g]) for g in group]
    return {"reward": right, "pass_rate": rate, **given}


def _weighed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The share of right answers with which a good row has the weight that the case gives."""
    rate = [1.0 if k >= 1 else -math.log1p(-k) / math.e for k in given["kl_weight"]]
    return {name: x for name, x in given.items() if name != "kl_weight"} | {"pass_rate": rate}


def _kl_weight(run: Run) -> Tensor:
    return LooseWhereHard()(run.batch.replace(advantage=run.credited.advantage))


GIVEN = {"weight": _judged, "advantage": _judged, "loss": _weighed}
PARAMS = {"pg_aggregation": lambda name: {"aggregate": name}, "kl_aggregation": None}
KEYS = {
    "difficulty": lambda run: 1 - run.batch.pass_rate,
    "stcr_weight": lambda run: run.part("advantage").by(run.batch),
    "group_advantage": lambda run: run.part("advantage").of(run.batch),
    "kl_weight": _kl_weight,
}
