"""Aggregations: how the losses of tokens become one number."""

from __future__ import annotations

from torch import Tensor

from policyopt.part import Aggregate, Positive, part
from policyopt.rows import Batch


@part
class TokenMean(Aggregate):
    r"""``token-mean``: every token weighs the same, :math:`1/\sum_j|y_j|`. Source: DAPO, arXiv:2503.14476, eq. 8.

    Our reading: the sum runs over the whole mini-batch, as in the released trainer; eq. 8 normalises inside each
    prompt's group.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask / batch.mask.sum().clamp(min=1)


@part
class SeqMeanTokenMean(Aggregate):
    r"""``seq-mean-token-mean``: every response weighs the same, :math:`1/(N|y_i|)`. Source: GRPO, arXiv:2402.03300,
    eq. 3."""

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask / batch.mask.sum(-1, keepdim=True).clamp(min=1) / batch.mask.shape[0]


@part
class SeqMeanTokenSum(Aggregate):
    r"""``seq-mean-token-sum``: token losses are summed in a response, then averaged over responses, :math:`1/N`.

    The unbiased form of the policy gradient (REINFORCE). With a sequence ratio on every token it is LUSPO's
    length-weighted sequence loss (arXiv:2602.05261).
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask / batch.mask.shape[0]


@part
class SeqMeanTokenSumNorm(Aggregate):
    r"""``seq-mean-token-sum-norm``: as ``seq-mean-token-sum``, over a constant, :math:`1/(N L_{max})`.

    Source: Dr. GRPO, arXiv:2503.20783, and the authors' code, where the constant is the generation budget.
    """

    norm: Positive | None = None
    """The constant in tokens; None takes the budget of the run (``batch.budget``)."""

    def __call__(self, batch: Batch) -> Tensor:
        return self.over_norm(batch) / batch.mask.shape[0]

    def over_norm(self, batch: Batch) -> Tensor:
        """1 over the constant, [N, T]."""
        norm = batch.budget[:, None].to(batch.mask) if self.norm is None else self.norm
        return batch.mask / norm
