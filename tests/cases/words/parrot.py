"""What cases call things in Parrot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.methods.judge.parrot import non_dominated
from policyopt.rows import Batch

from ._grown import on_batch


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    """The case with a name for each of its rewards."""
    names = tuple(f"r{k}" for k in range(len(given["rewards"][0])))
    params = {**given.get("params", {}), "rewards": names}
    return {**given, "params": params}


def _judged(run: Run) -> Batch:
    """The batch with a component for each reward."""
    plain = {name: x for name, x in run.given.items() if name != "rewards"}
    batch = build_batch(plain, run.params, run.columns)
    said = torch.tensor(run.given["rewards"], dtype=torch.float64)
    return batch.replace(reward=said[:, 0], **{f"component[r{k}]": said[:, k] for k in range(said.shape[1])})


def _kept(run: Run) -> Tensor:
    said = torch.tensor(run.given["rewards"], dtype=torch.float64)
    return non_dominated(said, run.batch.reward_id).double()


GIVEN = {"loss": _named}
COLUMNS = {"reward_id": ("reward_id", "row"), "rewards": ("", "free")}
PARAMS = {"rewards": lambda names: {"rewards": names, "group_size": max(2, len(names))}}
KEYS = on_batch(_judged, {"pareto": _kept, "weight": lambda run: run.credited.advantage})
