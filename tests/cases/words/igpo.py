"""What cases call things in IGPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.igpo import InformationGain
from policyopt.rows import pad
from policyopt.turns import to_go

from ._episodes import episodes, ragged


def _advantage(given: Mapping[str, Any]) -> dict[str, Any]:
    """Episodes of one token a turn, whose last turn has the outcome."""
    params = dict(given["params"])
    part = InformationGain(eps=params.pop("adv_eps"), **params)
    truth = [[sum(said) / len(said) for said in turns] for turns in given["truth_token_logp"]]
    told = [
        {"group": group, "step_reward": [0.0] * (len(turns) - 1) + [outcome]}
        for group, turns, outcome in zip(given["group"], truth, given["outcome"], strict=True)
    ]
    batch = episodes(told).replace(truth_logp=pad(truth, torch.float64, float("nan")))
    return {
        "truth_prob": ragged(batch, batch.truth_logp.exp()),
        "turn_reward": ragged(batch, part.rewards(batch)),
        "advantage": ragged(batch, to_go(part.normalised(batch), part.gamma)),
    }


CASES = {"advantage": _advantage}
