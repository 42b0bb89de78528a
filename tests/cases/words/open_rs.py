"""What cases call things in Open-RS."""

from __future__ import annotations

COLUMNS = {"format": ("formatted", "row")}
PARAMS = {
    "correct_at_zero": "shape.1.right.0",
    "correct_at_max": "shape.1.right.1",
    "wrong_at_zero": "shape.1.wrong.0",
    "wrong_at_max": "shape.1.wrong.1",
}
KEYS = {"cosine_reward": lambda run: run.part("shape.1").value(run.batch)}
