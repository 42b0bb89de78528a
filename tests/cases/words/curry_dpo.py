"""What cases call things in Curry-DPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.preference.curry_dpo import RoundOfPairs
from policyopt.rows import make_batch


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs of each round: prompt, chosen, rejected, gap."""
    scores = given["scores"]
    reward = torch.tensor([x for row in scores for x in row], dtype=torch.float64)
    group = torch.tensor([i for i, row in enumerate(scores) for _ in row])
    place = [j for row in scores for j in range(len(row))]
    batch = make_batch(mask=torch.ones_like(reward)[:, None], reward=reward, group=group)
    rounds = []
    for number in range(1, given["params"]["iterations"] + 1):
        pairs = zip(*(side.tolist() for side in RoundOfPairs(number=number).pairs(batch)), strict=True)
        rounds.append([[int(group[w]), place[w], place[r], float(reward[w] - reward[r])] for w, r in pairs])
    return {"iterations": rounds}


CASES = {"schedule": _schedule}
