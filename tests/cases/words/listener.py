"""What cases call things in Listener-Rewarded Thinking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.judge.listener import option_probability


def _heard(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of which a listener has said how likely each option is."""
    said = dict(given)
    gold, chosen = said.pop("gold"), said.pop("prediction")
    logits = [torch.tensor(row, dtype=torch.float64) for row in said.pop("listener_option_logit")]
    right = [float(g == k) for g, k in zip(gold, chosen, strict=True)]
    heard = [float(option_probability(row, g)) for row, g in zip(logits, gold, strict=True)]
    return {**said, "correct": right, "listened": heard}


COLUMNS = {"format": ("formatted", "row")}
PARAMS = {"acc_weight": "accuracy_weight"}
GIVEN = {"reward": _heard}
KEYS = {"listener_reward": lambda run: run.batch.listened}
