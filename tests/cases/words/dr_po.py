"""What cases call things in DR-PO."""

from __future__ import annotations

from typing import Any

from policyopt.lens.case import Run

from ._scripted import begun, begun_mask, trained


def _starts(run: Run) -> list[int]:
    """Where each response starts in its reference."""
    rollout: Any = run.recipe.source
    chances = zip(run.given["ref_len"], run.given["u_mix"], run.given["u_len"], strict=True)
    return [rollout.length(*chance) for chance in chances]


COLUMNS = dict.fromkeys(("ref_len", "u_mix", "u_len", "rollin_len"), ("", "free"))
PARAMS = {"beta": "reset"}
GIVEN = {"loss": lambda given: begun(given, "rollin_len")}
KEYS = {
    "reset_len": _starts,
    "train_mask": lambda run: (
        trained(run) if "rollin_len" in run.asked else begun_mask(run.asked["mask"], _starts(run))
    ),
}
