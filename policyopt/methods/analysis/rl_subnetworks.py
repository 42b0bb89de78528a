"""RL fine-tunes small subnetworks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from policyopt.part import NonNegative, Probe, part
from policyopt.registry import study

# Of parameters -------------------------------------------------------------------------------------------------------


def updated(before: Tensor, after: Tensor, tolerance: float) -> Tensor:
    """Which weights moved by more than ``tolerance``, boolean."""
    return (after - before).abs() > tolerance


def sparsity(moved: Tensor) -> Tensor:
    """The share of weights that did not move; 1 of none."""
    return 1 - moved.double().sum() / max(1, moved.numel())


def update_rank(before: Tensor, after: Tensor) -> float:
    """Numerical rank (in float32) of the change of a matrix, over the largest that it can have."""
    change = (after - before).float()
    return float(torch.linalg.matrix_rank(change)) / min(change.shape)


@part
class UpdateSparsity(Probe):
    r"""Which share of the parameters has not moved since the start, :math:`1 - \frac1n\sum_j 1[|\theta_j - \theta^0_j| > \epsilon]`.

    Logs ``sparsity/all`` and one number for each kind of tensor (``sparsity/q_proj``: the last but one piece of its
    name), ``sparsity/exact``, the share that did not move at all, and with ``rank`` also ``sparsity/rank``, the mean
    relative rank of the updates of matrices. Both sides are rounded before they are subtracted, for the rank too: the
    precision is part of the claim, as in float32 nearly every weight moves a little. Source: arXiv:2505.11711 and the
    authors' code (SagnikMukherjee/sparsity_in_rl; bfloat16, 1e-5), which has a mean per layer in the place of the kinds.
    """

    tolerance: NonNegative = 1e-5
    """epsilon: a weight has moved if it differs by more."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """What both are rounded to before they are subtracted."""
    rank: bool = False
    """Also measure the rank of the updates, which costs a decomposition of every matrix."""

    def parameters(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, float]:
        kinds: dict[str, list[Tensor]] = {}
        ranks: list[float] = []
        for name, unrounded in start.items():
            before, after = self._rounded(unrounded), self._rounded(now[name])
            moved = updated(before, after, self.tolerance).flatten()
            for kind in ("all", ([name, *name.split(".")])[-2]):
                kinds.setdefault(kind, []).append(moved)
            kinds.setdefault("exact", []).append(updated(before, after, 0.0).flatten())
            if self.rank and before.dim() == 2:
                ranks.append(update_rank(before, after))
        found = {f"sparsity/{kind}": float(sparsity(torch.cat(moved))) for kind, moved in kinds.items()}
        return found | ({"sparsity/rank": sum(ranks) / len(ranks)} if ranks else {})

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16 if self.precision == "bfloat16" else torch.float32)


@study(
    arxiv="2505.11711",
    code="SagnikMukherjee/sparsity_in_rl",
    confidence="code",
    use="policyopt train grpo --with rl-subnetworks",
)
def rl_subnetworks(
    tolerance: float = 1e-5, precision: Literal["bfloat16", "float32"] = "bfloat16", rank: bool = False
) -> tuple[Probe, ...]:
    r"""Which share of the weights training never moves.

    .. math:: \mathrm{sparsity} = 1 - \frac1n\sum_j 1\big[|\theta_j - \theta^0_j| > \epsilon\big]

    At each evaluation the parameters are compared with those of the start, both rounded to ``precision``, eps =
    ``tolerance``: ``sparsity/all``, and one number for each kind of matrix, whatever the method that trains
    (:class:`~policyopt.methods.analysis.rl_subnetworks.UpdateSparsity`). In the paper RL leaves 70 to 95 % of the weights of
    a bfloat16 model as they were, because its data are near the policy; GRPO with ``--kl-coef 0 --low none --high none``
    takes the other suspects away. Source: arXiv:2505.11711 and the authors' code, which has these measurements alone:
    no training of the subnetwork by itself, and no overlap of two masks.
    """
    return (UpdateSparsity(tolerance=tolerance, precision=precision, rank=rank),)
