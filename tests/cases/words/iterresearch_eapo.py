"""What cases call things in IterResearch with EAPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.agents.iterresearch_eapo import WholeMultiple
from policyopt.rows import make_batch


def _rounds(given: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds are numbered from 0 here, and an episode has as many as rows."""
    rest = {k: x for k, x in given.items() if k not in ("round", "num_rounds")}
    return {**rest, "turn": [k - 1 for k in given["round"]]}


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    part, kept = WholeMultiple(of=given["params"]["dp_size"]), []
    for n in given["num_samples"]:
        noise = torch.rand(n, 1, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        kept.append(int(part(make_batch(mask=torch.ones_like(noise), noise=noise)).sum()))
    return {"num_kept": kept, "num_dropped": [n - k for n, k in zip(given["num_samples"], kept, strict=True)]}


GIVEN = {"loss": _rounds}
CASES = {"sampler": _kept}
COLUMNS = {"trajectory": ("episode", "row"), "outcome": ("reward", "row")}
