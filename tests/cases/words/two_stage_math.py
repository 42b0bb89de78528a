"""What cases call things in Fast-Math-R1."""

from __future__ import annotations

PARAMS = {"max_len": "max_len"}
KEYS = {
    "cosine_reward": lambda run: run.part("shape.cosine").value(run.batch),
    "length_reward": lambda run: run.part("shape.among").value(run.batch),
}
