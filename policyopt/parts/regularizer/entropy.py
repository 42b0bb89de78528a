"""Entropy as a loss."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.part import NonNegative, Regularizer, Unit, part
from policyopt.rows import Batch, masked_mean


@part
class EntropyBonus(Regularizer):
    r"""A bonus :math:`-c H(\pi_\theta(\cdot|x, y_{<t}))` that keeps the policy from becoming deterministic. Source: arXiv:1707.06347, eq. 9."""

    coef: NonNegative = 0.01
    """c, the weight of the entropy in nats."""
    mean: bool = False
    """Whether it is the mean over the tokens of the mini-batch, however their losses are aggregated."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    @property
    def unit(self) -> Unit:
        """The batch where it is a mean over it, else the token."""
        return "batch" if self.mean else "token"

    def __call__(self, batch: Batch) -> Tensor:
        return -self.coef * (masked_mean(batch.entropy, batch.mask) if self.mean else batch.entropy)
