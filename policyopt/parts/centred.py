"""Centred ratios: log-ratios whose mean under the old policy is zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from policyopt.batch import Batch
from policyopt.parts.base import Positive, Ratio, Statistic, part
from policyopt.parts.ratio import TokenRatio, by_position


@part
class KLFromReference(Statistic):
    r"""KL of the policy's next-token distribution from the reference's, :math:`\sum_v \pi_{ref}(v)\log\frac{\pi_{ref}(v)}{\pi_\theta(v)}`,
    in nats."""

    roles: ClassVar[frozenset[str]] = frozenset({"reference"})

    def __call__(self, logits: Tensor, target: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        reference = others["reference"].log_softmax(-1)
        return (reference.exp() * (reference - logits.log_softmax(-1))).sum(-1)


def centred(log_ratio: Tensor, kl: Tensor, scale: Tensor) -> Tensor:
    """A log-ratio plus the KL that its mean falls short of 0 by, times a scale."""
    return (log_ratio + kl) * scale


def gaussian_log_ratio(sample: Tensor, mean: Tensor, old_mean: Tensor, std: Tensor) -> Tensor:
    r"""Log-ratio of two Gaussian steps of one ``std`` [T] at a sample, [N, T] from [N, T, D]: the mean over the D
    dimensions of :math:`\big((x-\mu_{old})^2 - (x-\mu)^2\big)/2\sigma^2`."""
    return ((sample - old_mean) ** 2 - (sample - mean) ** 2).mean(-1) / (2 * std**2)


def gaussian_kl(mean: Tensor, old_mean: Tensor, std: Tensor) -> Tensor:
    r"""KL of two Gaussian steps of one ``std`` [T], [N, T] from [N, T, D]: the mean over the D dimensions of
    :math:`(\mu-\mu_{old})^2/2\sigma^2`."""
    return ((mean - old_mean) ** 2).mean(-1) / (2 * std**2)


@part
class CentredRatio(Ratio):
    r"""The token ratio whose logarithm is centred and scaled at each position.

    .. math:: \log r'_{i,t} = \big(\log r_{i,t} + KL(\pi_{old} \| \pi_\theta)_{i,t}\big)\, s_t

    Under the old policy a log-ratio has the mean -KL, so that good tokens hardly reach the upper bound; this one has
    the mean 0. Source: GRPO-Guard, arXiv:2510.22319. Our reading for tokens: the KL is that of whole next-token
    distributions, with gradient; the old policy is the reference, which ``Reset(every=1)`` makes the policy before the
    step.
    """

    scale: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """s_t from the first position on; the last one stands for all positions after it."""

    @property
    def live(self) -> tuple[Statistic, ...]:
        """The KL."""
        return (KLFromReference(),)

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch)
        return centred(log_ratio, batch.stat(self.live[0]), by_position(self.scale, log_ratio))
