"""Penalties on the distance from the policy that sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.part import NonNegative, Regularizer, Unit, Wrapper, part
from policyopt.parts.regularizer.kl import kl_estimate
from policyopt.parts.select.tokens import Selector
from policyopt.rows import Batch, held, masked, masked_mean

Deviation = Literal["chi2", "kl-new-old", "k3", "k2", "abs", "kl-old-new", "k3-old-new"]


def deviation(log_ratio: Tensor, kind: Deviation) -> Tensor:
    r"""How far each token has moved, from :math:`d = \log\pi_\theta - \log\pi_{old}` [N, T]; 0 at d = 0.

    ``chi2`` is :math:`(e^d - 1)^2`, ``abs`` its absolute value, ``k2`` is :math:`d^2/2`. Of tokens that the old policy drew,
    ``kl-new-old`` :math:`d e^d - e^d + 1` is an unbiased estimate of KL(new || old), never negative; ``kl-old-new``
    :math:`-d` and ``k3-old-new`` :math:`e^d - 1 - d` are unbiased estimates of KL(old || new), the first of either sign.
    ``k3`` :math:`e^{-d} - 1 + d` would estimate KL(new || old) if the new policy had drawn them. Where exponentials are
    taken, d is held to 20 on the side on which they grow.
    """
    if kind == "chi2":
        return (held(log_ratio).exp() - 1) ** 2
    if kind == "kl-new-old":
        d = held(log_ratio)
        return d * d.exp() - d.exp() + 1
    if kind == "abs":
        return log_ratio.abs()
    zero = torch.zeros_like(log_ratio)
    if kind in ("k2", "k3"):
        return kl_estimate(log_ratio, zero, "k2" if kind == "k2" else "k3")
    return kl_estimate(zero, log_ratio, "k1" if kind == "kl-old-new" else "k3")


@part
class Proximal(Wrapper, Regularizer):
    r"""A penalty on every token for leaving the policy that sampled it, :math:`c\,f(\log\pi_\theta - \log\pi_{old})`.

    f is one of :func:`deviation`; with ``tokens`` it falls on those alone. Sources: chi2, R2VPO, arXiv:2601.03320;
    kl-new-old, MDPO, arXiv:2005.09814; k2, OPMD, arXiv:2509.24203; abs on selected tokens, KL-Cov, arXiv:2505.22617;
    k3 as a mean, TRPA, arXiv:2504.04524.
    """

    coef: NonNegative = 1.0
    """c; a controller may move it."""
    deviation: Deviation = "chi2"
    """f."""
    tokens: Selector | None = None
    """Which tokens are held; None for all."""
    mean: bool = False
    """Whether it is the mean over the tokens of the mini-batch, however their losses are aggregated."""

    around: ClassVar[str] = "tokens"

    @property
    def unit(self) -> Unit:
        """The batch where it is a mean over it, else that of the selector."""
        return "batch" if self.mean else super().unit

    def __call__(self, batch: Batch) -> Tensor:
        found = self.coef * deviation(batch.logp - batch.old_logp, self.deviation)
        found = masked(found, self.tokens(batch)) if self.tokens else found
        return masked_mean(found, batch.mask) if self.mean else found

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return {f"proximal/{self.deviation}": deviation(batch.logp - batch.old_logp, self.deviation)}
