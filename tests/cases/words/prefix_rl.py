"""What cases call things in PrefixRL."""

from __future__ import annotations

from policyopt.lens.case import Run

from ._scripted import begun, trained


def _cuts(run: Run) -> list[list[int]]:
    """The length of each prefix of each trace."""
    lengths = zip(run.given["trace_len"], run.given["u"], strict=True)
    return [[run.recipe.source.length(n, u) for u in us] for n, us in lengths]  # type: ignore[attr-defined]


COLUMNS = dict.fromkeys(("trace_len", "u", "prefix_len"), ("", "free"))
PARAMS = {"low": "shortest", "high": "longest"}
GIVEN = {"loss": lambda given: begun(given, "prefix_len")}
KEYS = {"prefix_len": _cuts, "train_mask": trained}
