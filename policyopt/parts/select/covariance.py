"""Tokens by the covariance of their log-probability and advantage."""

from __future__ import annotations

import torch
from torch import Tensor

from policyopt.rows import Batch, masked, masked_mean


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
