"""AOT."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.methods.preference.dpo import dpo
from policyopt.part import part
from policyopt.parts import Logistic, RowScore
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class Quantiles(Logistic):
    r"""The logistic loss of sorted numbers: one distribution is to lie above another, whatever pair each number comes from.

    .. math:: z_{(k)} = \beta\big(\mathrm{sort}(s_w)_k - \mathrm{sort}(s_l)_k\big)\quad\text{or, paired,}\quad
              z_{(k)} = \beta\big(\mathrm{sort}(\ell_w - \ell_l)_k - \mathrm{sort}(r_w - r_l)_k\big)

    over all pairs of the mini-batch, k the rank. s are log-ratios to the reference, :math:`\ell = s + r` with r the log-probability of the
    response under the reference. Sorting is optimal transport on a line: the loss is that of stochastic dominance of first order, which holds where every z is
    above 0. Source: AOT, arXiv:2406.05882, and TRL.
    """

    paired: bool = True
    """Compare the margins of policy and reference, in the place of the log-ratios of the two sides."""

    @property
    def needs(self) -> frozenset[str]:
        """What the reference thinks of the responses, where margins are compared."""
        return super().needs | (frozenset({"ref_logp"}) if self.paired else frozenset())

    def gap(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        above, below = score[better], score[worse]
        if self.paired:
            prior = RowScore()(batch.replace(logp=batch.ref_logp))
            below = prior[better] - prior[worse]
            above = above - score[worse] + below
        order = above.argsort(stable=True)
        apart = above[order] - below.sort().values
        z = self.beta * torch.zeros_like(apart).index_copy(0, order, apart)  # each where its larger number comes from
        return z if self.margin is None else z - self.margin(batch, better, worse)

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        loss = self.loss(self.gap(score, batch, better, worse))
        return loss.mean().expand_as(loss) if len(loss) else loss  # a rank is of no pair: all carry the mean


@method(
    parent=dpo,
    arxiv="2406.05882",
    confidence="code",
    claim=Claim(
        "Preferences that hold between distributions need no order within single pairs: as many held-out pairs come to be in order as with DPO.",
        "pairs",
        (Effect("pairs/accuracy", "higher", -0.02),),
        both={"steps": 10},
    ),
)
def aot(beta: float = 0.1, label_smoothing: float = 0.0, paired: bool = True) -> Recipe:
    r"""Alignment via Optimal Transport: the preferred texts as a whole are to be likelier than the others, quantile by quantile.

    .. math:: L = -\frac1P\sum_k\log\sigma(z_{(k)}),\qquad z_{(k)} = \beta\big(\mathrm{sort}(\ell_w - \ell_l)_k - \mathrm{sort}(r_w - r_l)_k\big)

    l and r are the log-probabilities of a text under policy and reference, each side of the difference sorted apart, over the mini-batch.
    Not ``paired``, it compares the sorted log-ratios :math:`\ell - r` of both sides, which need not be answers to the same prompts. ``label_smoothing`` as in
    :func:`dpo`. A mini-batch of one pair is DPO. Source: arXiv:2406.05882; as TRL has it (``aot`` and ``aot_unpaired``), beta as in DPO. Our reading:
    sorted over the whole mini-batch, where TRL sorts inside a micro-batch.
    """
    return dpo().set("surrogate.link", Quantiles(beta=beta, smoothing=label_smoothing, paired=paired))
