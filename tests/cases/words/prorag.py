"""What cases call things in ProRAG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.prorag import FlooredOutcome, OutcomeAndSteps, step_score
from policyopt.parts import Normalise
from policyopt.rows import make_batch


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    params, names = given["params"], ("mask", "step_score", "reward")
    mask, score, reward = (torch.tensor(given[name], dtype=torch.float64) for name in names)
    batch = make_batch(mask=mask, reward=reward, group=torch.tensor(given["group"]))
    made = OutcomeAndSteps(beta=params["prm_beta"], outcome=Normalise(eps=params["eps"]))
    outcome = made.outcome(batch)
    return {
        "outcome_advantage": outcome[:, 0],
        "advantage": (outcome + made.beta * made.pooled(score, mask.bool(), batch)) * mask,
    }


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    params = given["params"]
    f1, formatted = (torch.tensor(given[name], dtype=torch.float64) for name in ("f1", "format_ok"))
    batch = make_batch(mask=torch.ones(len(f1), 1, dtype=torch.float64), reward=f1, formatted=formatted)
    part = FlooredOutcome(scale=params["f1_scale"], floor=params["f1_floor"])
    pairs = zip(given["prm_logit"], given["step_format_ok"], strict=True)
    return {
        "reward": part(batch.replace(**{"component[f1]": f1})).reward,
        "step_score": [step_score(z, bool(ok)) for z, ok in pairs],
    }


CASES = {"advantage": _advantage, "reward": _reward}
