"""Ratios of single tokens."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from policyopt.part import Ratio, part
from policyopt.rows import Batch

Whose = Literal["policy", "proximal", "old", "sampler"]
"""A policy that has said how likely the tokens are: the one being trained; the same just before its first update on the batch
(``prox_logp``); the one that wrote the tokens (``old_logp``); the sampler, where it gives the same weights other numbers than
the trainer (``rollout_logp``)."""
_COLUMN = {"policy": "logp", "proximal": "prox_logp", "old": "old_logp", "sampler": "rollout_logp"}


@part
class TokenRatio(Ratio):
    r"""One importance ratio per token.

    .. math:: \log r_{i,t} = \log\pi_{of}(y_{i,t}) - \log\pi_{to}(y_{i,t})

    As it stands policy over the policy that sampled (PPO, arXiv:1707.06347, section 3). To the proximal policy it starts at 0
    however old the rows are (UloRL, arXiv:2507.19766; decoupled PPO, arXiv:2110.00641); of two policies that are both given it
    is a number without gradient, for a weight.
    """

    of: Whose = "policy"
    """Whose probability stands above."""
    to: Whose = "old"
    """Whose stands below."""

    @property
    def needs(self) -> frozenset[str]:
        """The log-probabilities that take a pass of their own."""
        return frozenset({_COLUMN[self.of], _COLUMN[self.to]} & {"prox_logp", "rollout_logp"})

    def __call__(self, batch: Batch) -> Tensor:
        return getattr(batch, _COLUMN[self.of]) - getattr(batch, _COLUMN[self.to])
