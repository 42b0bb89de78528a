"""What cases call things in Open-RS."""

from __future__ import annotations

COLUMNS = {"format": ("formatted", "row")}
PARAMS = {
    "correct_at_zero": "shape.LengthReward.right.0",
    "correct_at_max": "shape.LengthReward.right.1",
    "wrong_at_zero": "shape.LengthReward.wrong.0",
    "wrong_at_max": "shape.LengthReward.wrong.1",
}
KEYS = {"cosine_reward": lambda run: run.part("shape.LengthReward").value(run.batch)}
