"""What cases call things in T-PPO."""

from __future__ import annotations

COLUMNS = {"new_from": ("new_from", "row")}
KEYS = {
    "policy_mask": lambda run: run.part("weight.SelectedWeight")(run.batch.mask, run.batch) * run.batch.mask,
    "critic_mask": lambda run: run.part("critic").learned(run.batch),
    "value_target": lambda run: run.all_rows(run.credited.returns),
}
