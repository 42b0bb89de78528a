"""What cases call things in KTO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.lens.case import Run

COLUMNS = {"origin": ("origin", "row")}
TOKENS = ("mask", "logp", "ref_logp")


def _given(given: Mapping[str, Any]) -> dict[str, Any]:
    """Labelled rows, then those that answer another prompt than theirs (origin 1), of the same groups."""
    rows = {name: [*given[name], *given.get(f"kl_{name}", ())] for name in TOKENS}
    width = max(map(len, rows["mask"]))
    found: dict[str, Any] = {k: [[*x, *[0.0] * (width - len(x))] for x in v] for k, v in rows.items()}
    labelled, others = len(given["mask"]), len(rows["mask"]) - len(given["mask"])
    found["reward"] = [*map(float, given["label"]), *[0.0] * others]
    found["origin"] = [0.0] * labelled + [1.0] * others
    found["group"] = [*range(labelled), *range(others)]
    return found | {"params": given["params"]}


def _of_labelled(x: Any, run: Run) -> Any:
    return x[: len(run.asked["mask"])]


GIVEN = {"preference_loss": _given}
KEYS = {
    "z0": lambda run: run.part("surrogate").point(run.credited),
    "loss_per_row": lambda run: _of_labelled(run.part("surrogate").losses(run.credited), run),
    "dloss_dlogp": lambda run: [
        x[: len(row)].tolist() for x, row in zip(run.gradient("logp"), run.asked["mask"], strict=False)
    ],
}
