"""What cases call things in GRPO-CARE."""

from __future__ import annotations

COLUMNS = {
    "accuracy": ("correct", "row"),
    "other_reward": ("formatted", "row"),
    "ref_answer_logp": ("ref_logp", "token"),
    "answer_mask": ("span[LastAnswer]", "token"),
}
PARAMS = {"confidence_upper": "upper", "acc_min": "shape.ConsistencyBonus.least"}
KEYS = {
    "confidence": lambda run: run.part("shape.ConsistencyBonus").confidence(run.batch),
    "bonus": lambda run: run.part("shape.ConsistencyBonus").paid(run.batch),
}
