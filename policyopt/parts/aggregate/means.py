"""Aggregations: how the losses of tokens become one number."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.groups import by_source, group_sum
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
    eq. 3.

    N counts all rows of the mini-batch, those without a token to train on too, which then lower the step: as TRL does, and
    verl where it is told the size of the batch (it leaves them out where not). What a filter or a selection drops is no row.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask / batch.mask.sum(-1, keepdim=True).clamp(min=1) / batch.mask.shape[0]


@part
class SeqMeanTokenSum(Aggregate):
    r"""``seq-mean-token-sum``: token losses are summed in a response, then averaged over responses, :math:`1/N`.

    The unbiased form of the policy gradient (REINFORCE). With a sequence ratio on every token it is LUSPO's
    length-weighted sequence loss (arXiv:2602.05261). N counts rows without tokens, as in :class:`SeqMeanTokenMean`.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.mask / batch.mask.shape[0]


@part
class SeqMeanTokenSumNorm(Aggregate):
    r"""``seq-mean-token-sum-norm``: as ``seq-mean-token-sum``, over a constant, :math:`1/(N L_{max})`.

    N counts rows without tokens, as in :class:`SeqMeanTokenMean`. Source: Dr. GRPO, arXiv:2503.20783, and the authors'
    code, where the constant is the generation budget. verl's mode of this name sums over rows: :class:`SumOverRows` around it.
    """

    norm: Positive | None = None
    """The constant in tokens; None takes the budget of the run (``batch.budget``)."""

    def __call__(self, batch: Batch) -> Tensor:
        norm = batch.budget[:, None].to(batch.mask) if self.norm is None else self.norm
        return batch.mask / norm / batch.mask.shape[0]


@part
class SumOverRows(Aggregate):
    """An aggregation whose mean over responses is a sum: N times its shares. A larger mini-batch makes a larger step.

    Sources: ``seq-sum-token-mean``, DCPO, arXiv:2509.02333, and the authors' code (lime-RL/DCPO);
    ``seq-sum-token-sum-norm``, Critique-GRPO, arXiv:2506.03106, the authors' code (zhangxy-2019/critique-GRPO).
    """

    inner: Aggregate = SeqMeanTokenMean()
    """The aggregation with a mean over responses."""

    def __call__(self, batch: Batch) -> Tensor:
        return self.inner(batch) * batch.mask.shape[0]


@part
class PromptMean(Aggregate):
    r"""An aggregation whose mean over responses is one over prompts: each weighs the same, and in it each row of the same kind,
    :math:`1/(P\,n)` in the place of :math:`1/N`.

    P counts the prompts of the mini-batch, n the prompt's samples, or its auxiliary rows. Sources: GRAO, arXiv:2508.07750, eq. 1 (token
    means); Kimi k1.5, arXiv:2501.12599, section 2.3.2 (token sums).
    """

    inner: Aggregate = SeqMeanTokenMean()
    """The aggregation with a mean over responses."""

    def __call__(self, batch: Batch) -> Tensor:
        count = group_sum(torch.ones_like(batch.mask[:, 0]), by_source(batch))
        return self.inner(batch) * (len(batch.mask) / (len(batch.group.unique()) * count))[:, None]
