"""What cases call things in PF-PPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.sampling.pf_ppo import RankWeight

RANKS: dict[str, Literal["best", "best-random", "best-worst"]] = {
    "BoN": "best",
    "BR": "best-random",
    "BW": "best-worst",
}


def weighted_r2(reward: Tensor, actual: Tensor, weight: Tensor) -> Tensor:
    r"""How well a reward tells the true score on the rows that rank weights select: all [N], a number in [0, 1].

    .. math:: R^2 = 1 - \frac{\sum_i w_i (s_i - \hat s_i)^2}{\sum_i w_i (s_i - \bar s)^2}

    s is the true score, s-hat its weighted least-squares line on the reward. Measured on a labelled set it says which
    ranks a reward model can be trusted on, before any training. It is 0 where either does not vary. Source: PF-PPO,
    arXiv:2409.06957.
    """
    share = weight / weight.sum()
    x, y = reward - (share * reward).sum(), actual - (share * actual).sum()
    between = (share * x * y).sum() ** 2
    within = (share * x**2).sum() * (share * y**2).sum()
    return torch.where(within > 0, between / within.clamp(min=torch.finfo(within.dtype).tiny), 0.0)


def _shares(run: Run) -> dict[str, list[float]]:
    return {name: RankWeight(ranks=ranks).share(run.batch).tolist() for name, ranks in RANKS.items()}


def _trust(given: Mapping[str, Any]) -> dict[str, Any]:
    columns = (torch.tensor(given[name], dtype=torch.float64) for name in ("reward", "actual", "weight"))
    return {"r2": weighted_r2(*columns)}


KEYS = {"weight": _shares}
CASES = {"metric": _trust}
