"""Regularisers: losses per token beside the surrogate, aggregated like it."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import NonNegative, Regularizer, part

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logp: Tensor, ref_logp: Tensor, kind: Estimator) -> Tensor:
    r"""Estimate of KL(pi || ref) from each sampled token, [N, T], in nats.

    With :math:`k_1 = \log\pi - \log\pi_{ref}`: :math:`k_2 = k_1^2/2` and :math:`k_3 = e^{-k_1} - 1 + k_1`. k1 and k3 are unbiased
    in value, k1 can be negative. As a loss their gradients differ: that of k2 is the gradient of the KL on-policy,
    that of k1 is zero in expectation, that of k3 is the gradient of KL(ref || pi). Source: J. Schulman,
    "Approximating KL divergence", 2020.
    """
    k1 = logp - ref_logp
    if kind == "k1":
        return k1
    return k1**2 / 2 if kind == "k2" else (-k1).exp() - 1 + k1


@part
class KL(Regularizer):
    r"""A penalty :math:`\beta\,\widehat{KL}(\pi_\theta \| \pi_{ref})` in the loss. Source: GRPO, arXiv:2402.03300, eq. 4 (k3)."""

    coef: NonNegative = 0.04
    """beta."""
    estimator: Estimator = "k3"
    """Which estimate of the KL; see :func:`kl_estimate`."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef * kl_estimate(batch.logp, batch.ref_logp, self.estimator)


@part
class EntropyBonus(Regularizer):
    r"""A bonus :math:`-c H(\pi_\theta(\cdot|x, y_{<t}))` that keeps the policy from becoming deterministic. Source: arXiv:1707.06347, eq. 9."""

    coef: NonNegative = 0.01
    """c, the weight of the entropy in nats."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    def __call__(self, batch: Batch) -> Tensor:
        return -self.coef * batch.entropy
