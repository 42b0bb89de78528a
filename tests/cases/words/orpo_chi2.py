"""What the cases of orpo-chi2 call things: no rewards are given, so the penalty is the whole loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.methods.divergence.orpo_chi2 import SequenceDivergence, occupancy_distance, orpo_chi2, trimmed_mean
from policyopt.parts.ratio.sequence import sequence_log_ratio


def gradient(run: Run, part: SequenceDivergence) -> Tensor:
    """dpart/dlogp."""
    with torch.enable_grad():
        logp = run.batch.logp.clone().requires_grad_()
        return torch.autograd.grad(part(run.batch.replace(logp=logp)), logp)[0]


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    p, score = given["params"], torch.tensor(given["score"], dtype=torch.float64)
    recipe = orpo_chi2(penalty="reward", coef=p["coef"], trim=p["trim"])
    chi2 = occupancy_distance(score, "chi2", p["trim"])
    return {
        "kl_distance": occupancy_distance(score, "kl", p["trim"]),
        "chi2_distance": chi2,
        "chi2_trimmed": trimmed_mean(chi2, p["trim"]),
        "sqrt_chi2_distance": occupancy_distance(score, "sqrt-chi2", p["trim"]),
        "reward_bonus_sqrt_chi2": recipe.get("shape.OccupancyPenalty").bonus(score),
    }


PARAMS = {"log_ratio_clip": "limit"}
KEYS = {
    "sequence_log_ratio": lambda run: sequence_log_ratio(run.batch.logp, run.batch.ref_logp, run.batch.mask),
    "chi2": lambda run: run.part("regularizers.SequenceDivergence").estimate(run.batch, "chi2"),
    "kl": lambda run: run.part("regularizers.SequenceDivergence").estimate(run.batch, "kl"),
    "loss": lambda run: run.part("regularizers.SequenceDivergence")(run.batch),
    "dloss_dlogp": lambda run: gradient(run, run.part("regularizers.SequenceDivergence")),
    "dkl_dlogp": lambda run: gradient(
        run, dataclasses.replace(run.part("regularizers.SequenceDivergence"), kind="kl", coef=1.0)
    ),
}
CASES = {"reward": _reward}
