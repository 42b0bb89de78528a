"""Losses of a preferred and a rejected response, as functions of one number: how much higher the first one scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.part import Finite, Positive, part
from policyopt.parts.pairing.pairs import Margin
from policyopt.parts.surrogate.contrast import Link
from policyopt.rows import Batch


class Preference(Link):
    r"""A link of the scaled difference of two scores, beyond a margin: :math:`\ell(z),\; z = \beta(s_w - s_l) - m`."""

    beta: float
    margin: Margin | None

    @property
    def needs(self) -> frozenset[str]:
        """What the margin reads."""
        return self.margin.needs if self.margin else frozenset()

    def gap(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        """z, [P]."""
        z = self.beta * (score[better] - score[worse])
        return z if self.margin is None else z - self.margin(batch, better, worse)

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        return self.loss(self.gap(score, batch, better, worse))

    def loss(self, z: Tensor) -> Tensor:
        """The loss of each pair, [P]."""
        raise NotImplementedError


@part
class Logistic(Preference):
    r"""The negative log-likelihood of the preference as Bradley and Terry have it, where some labels may be flipped.

    .. math:: \ell(z) = -(1-\epsilon)\log\sigma(z) - \epsilon\log\sigma(-z)\quad\text{or, debiased,}\quad
              \frac{-(1-\epsilon)\log\sigma(z) + \epsilon\log\sigma(-z)}{1 - 2\epsilon}

    The first has its minimum at :math:`\sigma(z) = 1-\epsilon`; the mean of the second over flipped labels is the loss of the right ones,
    and it has no lower bound. Both are :math:`-\log\sigma(z)` at epsilon 0. Sources: DPO, arXiv:2305.18290 (and its code:
    smoothing); robust DPO, arXiv:2403.00409 (debiased).
    """

    beta: Positive = 0.1
    """Scale of the difference."""
    margin: Margin | None = None
    """m, by how much z is to exceed 0; 0 without one."""
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """epsilon, the share of labels that are taken to be flipped."""
    debiased: bool = False
    """Which of the two."""

    def loss(self, z: Tensor) -> Tensor:
        e = self.smoothing
        if not e:
            return -logsigmoid(z)
        if self.debiased:
            return (e * logsigmoid(-z) - (1 - e) * logsigmoid(z)) / (1 - 2 * e)
        return -(1 - e) * logsigmoid(z) - e * logsigmoid(-z)


@part
class Hinge(Preference):
    r"""Nothing once the gap is wide enough, :math:`\max(0, \delta - z)`.

    Sources: SLiC-HF, arXiv:2305.10425; RSO, arXiv:2309.06657 (on log-ratios to the reference).
    """

    beta: Positive = 1.0
    """Scale of the difference."""
    margin: Margin | None = None
    """m, by how much z is to exceed 0; 0 without one."""
    width: Finite = 1.0
    """delta."""

    def loss(self, z: Tensor) -> Tensor:
        return (self.width - z).clamp(min=0)


@part
class SquareTo(Preference):
    r"""The squared distance of the gap to a target, :math:`(z - c)^2`: going beyond it costs too.

    Sources: IPO, arXiv:2310.12036 (beta 1, c = 1/(2 tau)); INPO, arXiv:2407.00617.
    """

    beta: Positive = 1.0
    """Scale of the difference."""
    margin: Margin | None = None
    """m, by how much z is to exceed 0; 0 without one."""
    target: Finite = 5.0
    """c."""

    def loss(self, z: Tensor) -> Tensor:
        return (z - self.target) ** 2


@part
class BinaryLogistic(Link):
    r"""Both scores by themselves: the better one above a point of reference, the worse one below it.

    .. math:: \ell = -\log\sigma\big(\beta(s_w - \delta)\big) - \log\sigma\big(-\beta(s_l - \delta)\big)

    It bounds the logistic loss of the difference from above, most closely at the delta that is the mean of both scores. Source: BCO,
    arXiv:2404.04656, eq. 11.
    """

    beta: Positive = 0.1
    """Scale of the scores."""
    shift: Finite = 0.0
    """delta, in units of the scores (nats); a controller may move it."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        gain = self.beta * (score - self.shift)
        return -logsigmoid(gain[better]) - logsigmoid(-gain[worse])
