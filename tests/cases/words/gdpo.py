"""What cases call things in GDPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.rows import Batch

from ._grown import on_batch


def _weights(weights: Mapping[str, float]) -> dict[str, Any]:
    return {"advantage.weights": tuple(weights.items())}


def _judged(run: Run) -> Batch:
    """The batch with a component for each reward, NaN where it does not apply."""
    plain = {name: x for name, x in run.given.items() if name != "rewards"}
    batch = build_batch(plain, run.params, run.columns)
    said = {
        f"component[{name}]": torch.tensor([torch.nan if v is None else v for v in x], dtype=torch.float64)
        for name, x in run.given["rewards"].items()
    }
    return batch.replace(reward=torch.zeros(len(batch), dtype=torch.float64), **said)


def _parts(run: Run) -> list[list[float]]:
    return [run.part("advantage")._of(name, run.batch)[:, 0].tolist() for name in run.given["rewards"]]


def _sum(run: Run) -> list[float]:
    found: list[float] = run.recipe.set("advantage.whiten", False).get("advantage")(run.batch)[:, 0].tolist()
    return found


COLUMNS = {"rewards": ("", "free")}
PARAMS = {"weights": _weights}
KEYS = on_batch(_judged, {"advantage_parts": _parts, "weighted_sum": _sum})
