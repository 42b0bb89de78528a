"""SIREN: the words of its cases, which begin at nucleus entropies, or at logits."""

from __future__ import annotations

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


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "quantile": lambda run: _peaks(run).cut(_batch(run)),
    "peak_mask": lambda run: _peaks(run)(_batch(run)).to(run.batch.mask),
    "aggregate": lambda run: _anchor(run).mean(_batch(run)),
    "loss": lambda run: _anchor(run)(_batch(run)),
    "dloss_dentropy": _gradient,
}


def _metric(given: Mapping[str, Any]) -> Mapping[str, Any]:
    logits = torch.tensor(given["logits"], dtype=torch.float64)
    target = torch.zeros(len(logits), dtype=torch.long)
    edges: tuple[Literal["exclusive", "inclusive"], ...] = ("exclusive", "inclusive")
    return {f"entropy_{e}": NucleusEntropy(given["params"]["top_p"], e)(logits, target, {}) for e in edges}


CASES = {"metric": _metric}
