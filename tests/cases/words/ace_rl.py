"""What cases call things in ACE-RL."""

from __future__ import annotations

import torch

from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.parts import LengthRange
from policyopt.rows import Batch

from ._grown import on_batch


def _judged(run: Run) -> Batch:
    """The batch with a component for each place of the checklists."""
    plain = {name: x for name, x in run.given.items() if name != "constraint_score"}
    batch = build_batch(plain, run.params, run.columns)
    lists = run.given["constraint_score"]
    width = max(map(len, lists), default=0)
    padded = torch.tensor([[*row, *[torch.nan] * (width - len(row))] for row in lists], dtype=torch.float64)
    found = {f"component[{j}]": padded[:, j] for j in range(width)}
    return batch.replace(reward=torch.zeros(len(lists), dtype=torch.float64), **found)


COLUMNS = {"constraint_score": ("", "free"), "target_length": ("component[target_length]", "row")}
PARAMS = {"w_len": lambda w: {"w_len": w, "target": "target_length"}}
KEYS = on_batch(
    _judged,
    {
        "constraint_reward": lambda run: run.part("shape.Checklist")(run.batch).reward,
        "length_reward": lambda run: LengthRange(lower="target_length").value(run.batch),
    },
)
