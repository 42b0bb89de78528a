"""What cases call things in LongWriter-Zero."""

from __future__ import annotations

from policyopt.lens.case import Run

PARTS = ("length", "reward", "format")


def _parts(run: Run) -> list[list[float]]:
    """The advantage that each reward makes by itself."""
    advantage = run.part("advantage")
    return [advantage._of(name, run.shaped)[:, 0].tolist() for name in PARTS]


COLUMNS = {"writing_reward": ("reward", "row"), "format_reward": ("component[format]", "row")}
PARAMS = {
    "L_lower": "shape.LengthRange.lower",
    "L_upper": "shape.LengthRange.upper",
    "L_max": "shape.LengthRange.most",
}
KEYS = {
    "length_reward": lambda run: run.shaped.component("length"),
    "advantage_parts": _parts,
}
