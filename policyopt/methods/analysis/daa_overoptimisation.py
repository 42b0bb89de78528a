"""Likelihood over-optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from policyopt.models.likelihood import Wanted
from policyopt.part import Count, Probe, Statistic, part
from policyopt.registry import study
from policyopt.rows import Batch, masked_mean


@part
class TopK(Statistic):
    r"""How the policy's k likeliest next tokens share the probability, for each token of a response.

    .. math:: M = \sum_{i\le k}p_{(i)},\qquad H = -\sum_{i\le k}\tilde p_{(i)}\log\tilde p_{(i)},\quad \tilde p_{(i)} = p_{(i)}/M,\qquad
              H' = -\sum_{i\le k}p_{(i)}\log p_{(i)}

    with :math:`p_{(1)} \ge p_{(2)} \ge \dots` their mass, the entropy within them in nats (0 to log k), and the part that they have in the entropy of
    all. A constant on all logits changes none of them. Source: arXiv:2410.11677. Our reading: the entropy is renormalised
    within the top k; the un-renormalised one is there too.
    """

    k: Count = 10
    """k; all tokens where the vocabulary has fewer."""
    what: Literal["mass", "entropy", "partial"] = "entropy"
    """M, H or H'."""

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        logp = logits.log_softmax(-1).topk(min(self.k, logits.shape[-1]), dim=-1).values
        if self.what == "mass":
            return logp.exp().sum(-1)
        if self.what == "entropy":
            logp = logp.log_softmax(-1)
        return torch.special.entr(logp.exp()).sum(-1)


@part
class TopKShares(Probe):
    """The mean of :class:`TopK` over the tokens of the sampled responses of an evaluation: ``topk/mass``, ``topk/entropy`` and
    ``topk/partial_entropy``."""

    k: Count = 10
    """How many of the likeliest tokens."""

    def model(self, policy: Any, batch: Batch) -> dict[str, float]:
        mass, entropy, partial = statistics = (
            TopK(k=self.k, what="mass"),
            TopK(k=self.k, what="entropy"),
            TopK(k=self.k, what="partial"),
        )
        with torch.no_grad():
            leaves = policy.likelihood().leaves(batch, Wanted(statistics=statistics))

        def mean(statistic: TopK) -> float:
            return float(masked_mean(leaves[statistic.key], batch.mask))

        return {"topk/mass": mean(mass), "topk/entropy": mean(entropy), "topk/partial_entropy": mean(partial)}


@study(
    arxiv="2410.11677",
    confidence="secondary",
    use="policyopt train dpo --task pairs:chain_sum --with daa-overoptimisation --stopping.metric eval/topk/entropy",
)
def daa_overoptimisation(k: int = 10) -> tuple[Probe, ...]:
    r"""Two numbers that say whether a policy trained on pairs has become too sure, or too flat.

    .. math:: M_t = \sum_{i\le k}p_{(i)},\qquad H_t = -\sum_{i\le k}\frac{p_{(i)}}{M_t}\log\frac{p_{(i)}}{M_t}

    Making the chosen texts likelier, or the gap to the rejected ones wider, helps for a while and then hurts, with DPO, IPO and the
    hinge alike. At evaluations the mass M of the k likeliest next tokens and the entropy H within them are logged, means over
    the tokens of the policy's own responses to held-out prompts. H falls where the policy collapses, M where it goes flat, so
    both are there. Over-optimised is a policy of which either has fallen since the start while the margin of the pairs
    (``pairs/margin``) has grown. ``--stopping.metric eval/topk/entropy`` (or ``mass``) ends a run where it has turned, and
    ``--checkpoints.best`` keeps the model of the turning point. Which likelihood falls is in the log of every run on pairs. The
    auxiliary loss of the paper is :class:`~policyopt.parts.Likelihood` of the chosen side; it moves the likelihood and does not
    cure this.

    Source: arXiv:2410.11677; k is not known, 10 is ours, and so is the rule of the alarm, of which the paper shows turning points and
    gives no number. Our reading: probabilities are those at the temperature of the evaluation's samples.
    """
    return (TopKShares(k=k),)
