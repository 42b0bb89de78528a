"""What the cases of imitation-irl call things."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from policyopt.methods.distillation.imitation_irl import TemporalDifference
from policyopt.rows import masked_mean


def reward(run: Any) -> Tensor:
    """The implied reward, without a coefficient: it is worked out where the penalty is off, too."""
    part = TemporalDifference(gamma=run.params.get("gamma", 1.0))
    value = run.logits["policy"].logsumexp(-1)
    return part.reward(run.batch.with_statistics({part.value.key: value}))


COLUMNS = {"logits": ("policy", "logits")}
PARAMS = {"lambda": "td_coef"}
KEYS = {
    "nll": lambda run: -masked_mean(run.batch.logp, run.batch.mask),
    "td_square": lambda run: masked_mean(reward(run) ** 2, run.batch.mask),
    "implied_reward": reward,
}
