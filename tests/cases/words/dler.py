"""What cases call things in DLER."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.groups import group_mean
from policyopt.lens.case import Run
from policyopt.models.merge import merged


def _finished(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**given, "truncated": [1 - x for x in given["finished"]]}


def _kept(run: Run) -> list[int]:
    """Which groups the filters let through, in the order of the case."""
    groups = [*dict.fromkeys(run.given["group"])]
    rows = dict(zip(run.given["group"], run.keep.tolist(), strict=True))
    return [int(rows[g]) for g in groups]


def _centred(run: Run) -> Any:
    return run.shaped.reward - group_mean(run.shaped.reward, run.batch.group)


def _merge(given: Mapping[str, Any]) -> dict[str, Any]:
    base, tuned = ({"w": torch.tensor(given[name], dtype=torch.float64)} for name in ("base", "tuned"))
    params = given["params"]
    return {"merged": merged([base, tuned], keep=params["keep_fraction"], scale=params["scale"])["w"]}


COLUMNS = {"finished": ("", "free")}
PARAMS = {"trunc_coef": "truncated_share", "clip_c": "dual", "aggregation": "aggregate"}
GIVEN = {"advantage": _finished}
KEYS = {"group_kept": _kept, "centered": _centred}
CASES = {"other": _merge}
