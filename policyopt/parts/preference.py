"""Preference losses: one number for each pair of a chosen and a rejected response."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.batch import masked, masked_mean


def implicit_reward(logp: Tensor, ref_logp: Tensor, mask: Tensor, *, length_normalised: bool = False) -> Tensor:
    """What the policy makes of a response beyond the reference, [P] in nats: the sum of the log-ratios [P, T] of its
    tokens, or their mean where it is ``length_normalised``."""
    log_ratio = logp - ref_logp
    return masked_mean(log_ratio, mask, dim=-1) if length_normalised else masked(log_ratio, mask).sum(-1)


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    r"""Direct preference optimisation, [P], from the implicit rewards [P] of both responses:
    :math:`-\log\sigma(\beta(r_w - r_l))`.

    Sources: arXiv:2305.18290, eq. 7; length-normalised rewards: Tulu 3, arXiv:2411.15124.
    """
    return -logsigmoid(beta * (chosen - rejected))
