"""What cases call things in SPO with a single stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policyopt.lens.case import Run
from policyopt.lens.given import build_batch
from policyopt.methods.baseline.spo_single_stream import expected, moved, smoothed
from policyopt.rows import Batch

from ._grown import on_batch

FREE = ("stored_logp", "current_logp", "alpha", "beta", "offline")


def _single(given: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt for each row, where the case says nothing else."""
    return {"group": list(range(len(given["reward"]))), **given}


def _visited(run: Run) -> Batch:
    """The batch with what the tracker holds, and with how far the policy has moved."""
    given = run.given
    plain = {**{name: x for name, x in given.items() if name not in FREE}}
    batch = build_batch(plain, run.params, run.columns)
    history = torch.tensor([given["alpha"], given["beta"]], dtype=torch.float64).T
    stored, now = (torch.tensor(given[name], dtype=torch.float64) for name in ("stored_logp", "current_logp"))
    return batch.replace(history=history, drift=moved(stored, now, batch.mask))


def _first(run: Run) -> Tensor:
    """The counts of new prompts with these rewards beforehand."""
    prior = torch.tensor([smoothed(rewards) for rewards in run.given["offline"]], dtype=torch.float64)
    new = torch.full((len(prior), 2), torch.nan, dtype=torch.float64)
    ones = torch.ones(len(prior), 1, dtype=torch.float64)
    counts: Tensor = run.part("memory").counts(Batch({"mask": ones, "history": new, "prior": prior}))
    return counts


def _value(run: Run) -> Tensor:
    after = run.part("memory")(run.batch)
    return after[:, 0] / after.sum(-1)


def _probability(run: Run) -> Tensor:
    weights = run.part("curriculum").weights(run.batch.history)
    return weights / weights.sum()


GIVEN = {"advantage": _single}
COLUMNS = dict.fromkeys(FREE, ("", "free"))
KEYS = on_batch(
    _visited,
    {
        "init": _first,
        "divergence": lambda run: run.batch.drift,
        "rho": lambda run: run.part("memory").kept(run.batch),
        "baseline": lambda run: expected(run.batch),
        "alpha_next": lambda run: run.part("memory")(run.batch)[:, 0],
        "beta_next": lambda run: run.part("memory")(run.batch)[:, 1],
        "value_next": _value,
        "sample_prob": _probability,
    },
)
