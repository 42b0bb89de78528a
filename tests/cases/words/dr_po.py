"""What cases call things in DR-PO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.sources.draw import DatasetReset

from ._scripted import begun_mask, begun_run


def _resets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where each response starts in its reference."""
    rollout = DatasetReset(share=given["params"]["beta"])
    chances = zip(given["ref_len"], given["u_mix"], given["u_len"], strict=True)
    start = [rollout.length(*chance) for chance in chances]
    return {"reset_len": start, "train_mask": begun_mask(given["mask"], start)}


def _loss(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rows that begin with tokens of the reference."""
    run, mask = begun_run("dr-po", given, "rollin_len")
    keys = {"loss": 0.0, "dloss_dlogp": [[0.0]]}
    return {"train_mask": mask, **{key: run.value(key, like) for key, like in keys.items()}}


CASES = {"sampler": _resets, "loss": _loss}
