"""What cases call things in BRPO."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run


def _scores(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """The scores [thought][cut][answer] of one prompt, their means over answers, and the group of each thought."""
    reward = torch.tensor(run.given["score"], dtype=torch.float64)
    return reward, reward.mean(-1), torch.zeros(len(reward), dtype=torch.long)


def _returns(run: Run) -> Tensor:
    found: Tensor = run.part("advantage").returns(_scores(run)[1])
    return found


def _baseline(run: Run) -> Tensor:
    _, score, group = _scores(run)
    found: Tensor = run.part("advantage").baselines(score, group)
    return found


def _answered(run: Run) -> Tensor:
    reward, score, group = _scores(run)
    found: Tensor = run.part("advantage").answered(reward, score, torch.full_like(score, reward.shape[-1]), group)
    return found


def _budgets(value: Any) -> dict[str, Any]:
    return {"exits": len(value), "advantage.budgets": tuple(value)}


COLUMNS = {"score": ("", "free")}
PARAMS = {"prior": "budget_prior", "budgets": _budgets, "variance_reduction": "baseline"}
KEYS = {
    "budget_prob": lambda run: run.part("advantage").probability(_scores(run)[1]),
    "return": _returns,
    "baseline": _baseline,
    "think_advantage": lambda run: _returns(run) - _baseline(run),
    "summary_advantage": _answered,
}
