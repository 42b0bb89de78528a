"""Divergences between whole next-token distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from policyopt.part import Fraction, Positive, Statistic, part
from policyopt.parts.regularizer.kl import Target

# Of next-token distributions -----------------------------------------------------------------------------------------


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in nats, [M], from log-probabilities [M, V]."""
    return (p.exp() * (p - q)).sum(-1)


@part
class JSD(Statistic):
    r"""The generalised Jensen-Shannon divergence of the policy Q from a target P, in nats.

    .. math:: D_\beta = \beta\,KL(P\|M) + (1-\beta)\,KL(Q\|M),\qquad M = \beta P + (1-\beta) Q

    At the ends D would vanish; there it means the forward KL(P || Q) (beta 0, covers) and the reverse KL(Q || P) (beta 1,
    seeks), which are the limits of :math:`D/\beta` and :math:`D/(1-\beta)`. Source: GKD, arXiv:2306.13649, section 2.
    """

    beta: Fraction = 0.5
    """Weight of the target in the mixture M."""
    temperature: Positive = 1.0
    """Divides both logits, on top of the temperature that the row was sampled at."""
    target: Target = "teacher"
    """Whose distribution P is."""

    @property
    def roles(self) -> frozenset[str]:
        """The target."""
        return frozenset({self.target})

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        q, p = ((x / self.temperature).log_softmax(-1) for x in (logits, others[self.target]))
        if self.beta in (0, 1):
            return kl_divergence(q, p) if self.beta else kl_divergence(p, q)
        m = torch.logaddexp(p + math.log(self.beta), q + math.log(1 - self.beta))
        return self.beta * kl_divergence(p, m) + (1 - self.beta) * kl_divergence(q, m)
