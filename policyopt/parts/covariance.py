"""Tokens whose log-probability moves with their advantage: those that drain the entropy."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.batch import Batch, masked, masked_mean
from policyopt.parts.base import Finite, Fraction, NonNegative, Unit, part
from policyopt.parts.bounds import clip_metrics
from policyopt.parts.select import Selector


def covariance(batch: Batch) -> Tensor:
    r"""What each token adds to the covariance of log-probability and advantage, [N, T], without gradient.

    .. math:: (A_{i,t} - \mathrm{mean}\,A)\,(\log\pi_\theta(y_{i,t}) - \mathrm{mean}\log\pi_\theta)

    The means run over all tokens of the batch; 0 on padding. Source: arXiv:2505.22617, and the authors' code
    (PRIME-RL/Entropy-Mechanism-of-RL), which takes the means of a micro-batch.
    """
    advantage, logp = (masked(x.detach(), batch.mask) for x in (batch.advantage, batch.logp))
    product = (advantage - masked_mean(advantage, batch.mask)) * (logp - masked_mean(logp, batch.mask))
    return masked(product, batch.mask)


def quota(fraction: float, batch: Batch) -> int:
    """How many tokens a fraction of the batch is: at least one, unless it is 0."""
    return max(1, int(fraction * int(batch.mask.sum()))) if fraction else 0


def largest(x: Tensor, among: Tensor, count: int) -> Tensor:
    """The ``count`` largest of ``x`` [N, T] where ``among`` is true, as a boolean [N, T]; all where there are fewer."""
    picked = torch.zeros_like(among).flatten()
    places = among.flatten().nonzero()[:, 0]
    picked[places[x.flatten()[places].argsort(descending=True, stable=True)[:count]]] = True
    return picked.reshape(among.shape)


@part
class TopCovariance(Selector):
    r"""The :math:`\max(1, \lfloor q\,n \rfloor)` of the n tokens of the batch with the largest :func:`covariance`.

    Source: KL-Cov, arXiv:2505.22617.
    """

    fraction: Fraction = 2e-3
    """q; 0 picks none."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        return largest(covariance(batch), batch.mask.bool(), quota(self.fraction, batch))


@part
class CovarianceBand(Selector):
    r"""A random :math:`\max(1, \lfloor q\,n \rfloor)` of the tokens whose :func:`covariance` lies inside a band.

    Tokens that PPO's bounds clip have no gradient anyway and are not drawn. The draw takes the largest of the random
    numbers that came with the batch (``noise``), so it is the same for any order of rows. Source: Clip-Cov,
    arXiv:2505.22617.
    """

    fraction: Fraction = 2e-4
    """q, a share of all tokens; 0 picks none."""
    above: Finite = 1.0
    """The band's lower end."""
    below: Finite = 5.0
    """The band's upper end."""
    low: NonNegative | None = 1.0
    """PPO's lower distance from 1; None for no lower bound."""
    high: NonNegative | None = 1.0
    """PPO's upper distance from 1; None for no upper bound."""

    needs: ClassVar[frozenset[str]] = frozenset({"noise"})
    unit: ClassVar[Unit] = "batch"

    def eligible(self, batch: Batch) -> Tensor:
        """The tokens that may be drawn, boolean [N, T]."""
        low, high = (batch.logp.new_tensor(math.inf if x is None else x) for x in (self.low, self.high))
        clipped = clip_metrics((batch.logp - batch.old_logp).exp(), batch.advantage, 1 - low, 1 + high)
        found = covariance(batch)
        inside = (found > self.above) & (found < self.below)
        return batch.mask.bool() & inside & (clipped["clip/low"] + clipped["clip/high"] == 0)

    def __call__(self, batch: Batch) -> Tensor:
        return largest(batch.noise, self.eligible(batch), quota(self.fraction, batch))
