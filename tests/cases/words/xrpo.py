"""What cases call things in XRPO."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any

from policyopt.methods.sampling.xrpo import Allocated


def _allocate(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which prompt has the next response."""
    params, rewards = given["params"], given["rewards_so_far"]
    rule = Allocated(alpha=params["alpha"], bonus=params["lambda"])
    seen = [(len(r), statistics.stdev(map(float, r))) for r in rewards]
    total = sum(map(len, rewards))
    return {
        "half_width": [rule.half_width(n, s) for n, s in seen],
        "half_width_next": [rule.half_width(n + 1, s) for n, s in seen],
        "bonus": [rule.optimism(n, total) for n, _ in seen],
        "priority": [rule.priority(n, s, total) for n, s in seen],
        "next_prompt": rule.share(rewards, 1).index(1),
    }


PARAMS = {"lambda_novelty": "novelty", "kappa_clip": "cap", "lambda": "bonus"}
KEYS = {
    "base_advantage": lambda run: dataclasses.replace(run.part("advantage"), cap=0.0)(run.shaped),
    "seq_score": lambda run: run.part("advantage").likelihood(run.shaped),
    "novelty": lambda run: run.part("advantage").eta(run.shaped),
}
CASES = {"sampler": _allocate}
