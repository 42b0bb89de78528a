"""Likelihood terms: raise (or lower) the log-probability of some responses, whatever their advantage."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.batch import Batch, masked_mean
from policyopt.parts.base import Finite, Regularizer, Unit, part


@part
class Likelihood(Regularizer):
    r"""The mean negative log-likelihood of the tokens of some responses.

    .. math:: -\frac{c}{\sum_{i\in S}|y_i|}\sum_{i\in S}\sum_t\log\pi_\theta(y_{i,t})

    0 where S is empty. Source: Klear-Reasoner, arXiv:2508.07629 (correct responses).
    """

    coef: Finite = 0.1
    """c; below 0 it lowers the likelihood."""
    rows: Literal["all", "correct", "wrong"] = "correct"
    """S, by the judge's verdict."""

    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The verdict, where it chooses the rows."""
        return frozenset(() if self.rows == "all" else {"correct"})

    def __call__(self, batch: Batch) -> Tensor:
        mask = batch.mask
        if self.rows != "all":
            mask = mask * ((batch.correct > 0.5) == (self.rows == "correct"))[:, None]
        return -self.coef * masked_mean(batch.logp, mask)
