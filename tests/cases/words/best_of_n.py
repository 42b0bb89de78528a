"""What the cases of best-of-n call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.methods.analysis.alignment_asymptotics import best_of, best_of_kl, expected_best, kl, win_rate
from policyopt.methods.games.bonbon import ipo_beta
from policyopt.parts.select.rows import picked


def _metric(given: Mapping[str, Any]) -> dict[str, Any]:
    """A distribution and its best of n; or samples, and the best of n of them."""
    reward, n = torch.tensor(given["reward"], dtype=torch.float64), given["params"]["n"]
    if "prob" not in given:
        sizes = n if isinstance(n, list) else [n]
        return {"bon_reward": [float(expected_best(reward, size)) for size in sizes]}
    base = torch.tensor(given["prob"], dtype=torch.float64)
    best = best_of(base, reward, n)
    return {
        "bon_prob": best,
        "kl": float(kl(best, base)),
        "kl_bound": best_of_kl(n),
        "expected_reward": float((best * reward).sum()),
        "win_rate": float(win_rate(best, base, reward)),
        "win_rate_bound": n / (n + 1),
    }


def _kept(run: Run) -> Any:
    return picked(run.part("advantage.rows"), run.batch)


CASES = {
    "metric": _metric,
    "schedule": lambda given: {"ipo_beta": [ipo_beta(n) for n in given["params"]["n"]]},
}
PARAMS = {"method": "variant"}
KEYS = {"keep": _kept}
