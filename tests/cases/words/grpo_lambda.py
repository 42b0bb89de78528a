"""What cases call things in GRPO-lambda."""

from __future__ import annotations

from policyopt.lens.case import Run


def _top(run: Run) -> list[object]:
    """The groups that pay for length, in the order of the case."""
    paying = run.part("shape.LengthReward").rows(run.batch)
    return list(dict.fromkeys(g for g, pays in zip(run.given["group"], paying.tolist(), strict=True) if pays))


PARAMS = {"lambda": "top"}
KEYS = {"top_groups": _top}
