"""The likelihood of some rows as a loss."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.groups import group_sum
from policyopt.part import Finite, Regularizer, Unit, Wrapper, part
from policyopt.parts.score.rows import TokenScale
from policyopt.parts.select.rows import Judged, RowSelector, picked
from policyopt.rows import Batch, masked, masked_mean


@part
class Likelihood(Wrapper, Regularizer):
    r"""The mean negative log-likelihood of some responses.

    .. math:: -\frac{c}{\sum_{i\in S}|y_i|}\sum_{i\in S}\sum_t\ell_{i,t},\quad
              -\frac{c}{|S|}\sum_{i\in S}\frac{1}{|y_i|}\sum_t\ell_{i,t}\quad\text{or}\quad
              -\frac{c}{P}\sum_q\frac{1}{|S_q|}\sum_{i\in S_q}\sum_t\ell_{i,t},\qquad \ell_{i,t} = w_{i,t}\log\pi_\theta(y_{i,t})

    A mean over the tokens of S, over its responses of their token means, or over the P prompts q of the mini-batch of the
    log-likelihood of a whole response. w is 1 without a ``scale``, and counts in no divisor. 0 where S is empty. Sources: Klear-Reasoner, arXiv:2508.07629 (tokens of correct responses); RLGF, arXiv:2306.11816
    (tokens of references); ExPO, arXiv:2507.02834 (prompts, self-explanations);
    CHORD, arXiv:2508.11408 (tokens of references, scaled).
    """

    coef: Finite = 0.1
    """c; below 0 it lowers the likelihood."""
    rows: RowSelector | None = Judged()
    """S; None for all rows."""
    mean: Literal["token", "response", "prompt"] = "token"
    """What the mean is over."""
    scale: TokenScale | None = None
    """w."""

    around: ClassVar[str] = "rows"
    unit: ClassVar[Unit] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        """What picks the rows, and what the scale reads."""
        return super().needs if self.scale is None else super().needs | self.scale.needs

    def __call__(self, batch: Batch) -> Tensor:
        chosen = picked(self.rows, batch)
        logp = batch.logp if self.scale is None else self.scale(batch).detach() * batch.logp
        if self.mean == "token":
            return -self.coef * masked_mean(logp, batch.mask * chosen[:, None])
        if self.mean == "response":
            return -self.coef * (chosen * masked_mean(logp, batch.mask, dim=-1)).sum() / chosen.sum().clamp(min=1)
        weight = chosen / group_sum(chosen, batch.group).clamp(min=1) / max(1, len(batch.group.unique()))
        return -self.coef * (weight * masked(logp, batch.mask).sum(-1)).sum()
