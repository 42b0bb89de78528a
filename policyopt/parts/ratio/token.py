"""Ratios of single tokens."""

from __future__ import annotations

from torch import Tensor

from policyopt.part import Ratio, part
from policyopt.rows import Batch


@part
class TokenRatio(Ratio):
    r"""One importance ratio per token.

    .. math:: \log r_{i,t} = \log\pi_\theta(y_{i,t}) - \log\pi_{old}(y_{i,t})

    Source: PPO, arXiv:1707.06347, section 3.
    """

    def __call__(self, batch: Batch) -> Tensor:
        return batch.logp - batch.old_logp
