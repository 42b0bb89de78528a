"""Estimates of the KL divergence, as a loss."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from policyopt.part import UNITS, NonNegative, Ratio, Regularizer, RoleName, Unit, Wrapper, part
from policyopt.parts.select.rows import RowSelector, RowWeight, picked
from policyopt.rows import BOUND, Batch, held, masked
from policyopt.schema import member

Estimator = Literal["k1", "k2", "k3", "abs"]


def kl_estimate(logp: Tensor, ref_logp: Tensor, kind: Estimator) -> Tensor:
    r"""Estimate of KL(pi || ref) from each sampled token, [N, T], in nats.

    With :math:`k_1 = \log\pi - \log\pi_{ref}`: :math:`k_2 = k_1^2/2` and :math:`k_3 = e^{-k_1} - 1 + k_1`. k1 and k3 are unbiased
    in value, k1 can be negative. As a loss their gradients differ: that of k2 is the gradient of the KL on-policy,
    that of k1 is zero in expectation, that of k3 is the gradient of KL(ref || pi). Source: J. Schulman,
    "Approximating KL divergence", 2020. ``abs``, the absolute value of k1, estimates no KL; verl has it. In k3, k1 is held to at least -20, as in verl, so that it is finite in float32;
    beyond, it has no gradient.
    """
    k1 = logp - ref_logp
    if kind == "k1":
        return k1
    if kind == "abs":
        return k1.abs()
    if kind == "k2":
        return k1**2 / 2
    k1 = k1.clamp(min=-BOUND)
    return (-k1).exp() - 1 + k1


Target = RoleName
"""The role that a divergence runs to: "reference", "teacher", "previous", or one that ``--role`` names."""


@part
class KL(Wrapper, Regularizer):
    r"""A penalty :math:`\beta\,k_i\,r_{i,t}\,\widehat{KL}(\pi_\theta \| \pi_{target})` in the loss, from the sampled tokens alone.

    k_i is 1 on the rows that it falls on, or how much each of them counts. The tokens of a row that is left out still count in
    the aggregation. r is 1 without a ``ratio``. With ``TokenRatio()`` k1 and k3 have the gradient of the KL, whichever policy
    drew the tokens: :math:`r\nabla\log\pi_\theta\,k_1`, up to terms that vanish in expectation; k3 alone has it nowhere, and weighs
    tokens without bound that the reference finds likely and the policy no more. Sources: GRPO, arXiv:2402.03300, eq. 4 (k3,
    reference); KDRL, arXiv:2506.02208 (k2, teacher, rows); APO, arXiv:2506.21655 (weighed rows); DeepSeek-V3.2, arXiv:2512.02556,
    eq. 7 (k3, ratio), TRL's ``use_bias_correction_kl`` and slime's ``--use-unbiased-kl``.
    """

    coef: NonNegative = 0.04
    """beta; a controller may move it."""
    estimator: Estimator = "k3"
    """Which estimate of the KL; see :func:`kl_estimate`."""
    target: Target = "reference"
    """The model that the policy is held to: "reference", "teacher", "previous", or a name given by ``--role``."""
    rows: RowSelector | RowWeight | None = None
    """The rows that it falls on, or how much each of them counts; None for all alike."""
    ratio: Ratio | None = None
    """r, with its gradient: ``TokenRatio()`` makes the penalty unbiased off-policy; None for 1."""

    around: ClassVar[str] = "rows"

    @property
    def needs(self) -> frozenset[str]:
        """The target's log-probabilities, and what picks the rows and makes the ratio."""
        return super().needs | {member("logp_of", self.target)} | (self.ratio.needs if self.ratio else frozenset())

    @property
    def unit(self) -> Unit:
        """That of what picks the rows, or of the ratio where it is larger."""
        return max(super().unit, self.ratio.unit if self.ratio else "token", key=UNITS.index)

    def __call__(self, batch: Batch) -> Tensor:
        estimate = kl_estimate(batch.logp, batch.logp_of(self.target), self.estimator)
        if self.ratio is not None:
            estimate = estimate * held(self.ratio(batch)).exp()
        k = self.picked(batch)[:, None]
        return self.coef * k * masked(estimate, k)

    def picked(self, batch: Batch) -> Tensor:
        """k, [N]."""
        return picked(self.rows, batch)
