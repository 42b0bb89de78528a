"""Ratios of whole responses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from policyopt.part import Level, Ratio, Unit, part
from policyopt.rows import Batch, masked, masked_mean


def sequence_log_ratio(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio of each whole response, [N], in nats."""
    return masked(logp - ref_logp, mask).sum(-1)


@part
class SequenceRatio(Ratio):
    r"""One importance ratio per response: the geometric mean of its token ratios.

    .. math:: \log s_i = \frac{1}{|y_i|} \sum_t \log\frac{\pi_\theta(y_{i,t})}{\pi_{old}(y_{i,t})}

    Repeated over the tokens of row i, [N, T]. Source: GSPO, arXiv:2507.18071, eq. 7.
    """

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = batch.logp - batch.old_logp
        return masked_mean(log_ratio, batch.mask, dim=-1, keepdim=True).expand_as(log_ratio)


@part
class SequenceRatioPerToken(Ratio):
    r"""The value of the sequence ratio with the gradient of each token's own log-probability.

    .. math:: \log s_{i,t} = sg[\log s_i] + \log\pi_\theta(y_{i,t}) - sg[\log\pi_\theta(y_{i,t})]

    Lets the tokens of a response have advantages of their own. Source: GSPO-token, arXiv:2507.18071, eq. 14.
    """

    unit: ClassVar[Unit] = "row"
    level: ClassVar[Level] = "sequence"

    def __call__(self, batch: Batch) -> Tensor:
        return SequenceRatio()(batch).detach() + batch.logp - batch.logp.detach()
