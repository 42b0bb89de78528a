"""SIREN: the words of its cases, which begin at nucleus entropies, or at logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from policyopt.methods.entropy.siren import EntropyAnchor, NucleusEntropy
from policyopt.parts import AboveQuantile
from policyopt.rows import Batch


def _anchor(run: Any) -> EntropyAnchor:
    part: EntropyAnchor = run.part("regularizers.EntropyAnchor")
    return part


def _peaks(run: Any) -> AboveQuantile:
    return _anchor(run).tokens


def _batch(run: Any, entropy: Tensor | None = None) -> Batch:
    """The batch with the entropies of the case as those of the nucleus."""
    batch: Batch = run.batch
    return batch.with_statistics({_peaks(run).live[0].key: batch.entropy if entropy is None else entropy})


def _gradient(run: Any) -> Tensor:
    with torch.enable_grad():
        entropy = run.batch.entropy.clone().requires_grad_()
        loss = _anchor(run)(_batch(run, entropy))
        found = torch.autograd.grad(loss, entropy)[0] if loss.requires_grad else torch.zeros_like(entropy)
    return found


def _nucleus(run: Any, edge: Literal["exclusive", "inclusive"]) -> Tensor:
    """The entropy of each distribution that a case gives."""
    logits = torch.tensor(run.given["logits"], dtype=torch.float64)
    statistic: NucleusEntropy = _peaks(run).live[0]  # type: ignore[assignment]
    return dataclasses.replace(statistic, edge=edge)(logits, torch.zeros(len(logits), dtype=torch.long), {})


COLUMNS = {"logits": ("", "free")}
KEYS: Mapping[str, Callable[[Any], Any]] = {
    "quantile": lambda run: _peaks(run).cut(_batch(run)),
    "peak_mask": lambda run: _peaks(run)(_batch(run)).to(run.batch.mask),
    "aggregate": lambda run: _anchor(run).mean(_batch(run)),
    "loss": lambda run: _anchor(run)(_batch(run)),
    "dloss_dentropy": _gradient,
    "entropy_exclusive": lambda run: _nucleus(run, "exclusive"),
    "entropy_inclusive": lambda run: _nucleus(run, "inclusive"),
}
