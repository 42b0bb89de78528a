"""The policy cliff."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.part import NonNegative, Positive, Probe, part
from policyopt.parts import Normalise
from policyopt.parts.probe.tilt import optimal_set, tilt
from policyopt.registry import study
from policyopt.rows import make_batch


@part
class RewardCliff(Probe):
    r"""How far credit and the soft optimum jump when a tie between the best responses is broken by a tiny reward.

    The first of the best responses to each prompt gets ``epsilon`` more. Logs ``cliff/ties``, the share of prompts with
    several best responses; ``cliff/advantage`` and ``cliff/centred``, the mean change of the group-normalised and of the
    mean-centred advantage; and ``cliff/policy``, the change in L1 of :math:`\mathrm{softmax}(r/\alpha)`, at most
    :math:`\epsilon/\alpha`. Source: after arXiv:2507.20150.
    """

    epsilon: Positive = 1e-3
    """The reward that breaks ties."""
    alpha: Positive = 0.1
    """Temperature of the soft optimum."""
    tie: NonNegative = 1e-9
    """Rewards that differ by no more are equal."""

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})  # samples are only scored for probes that say so

    def samples(self, reward: Tensor, log_ratio: Tensor) -> dict[str, float]:
        reward = reward.double()
        best = optimal_set(reward, self.tie)
        broken = reward + self.epsilon * (best & (best.cumsum(1) == 1))

        def moved(by: Callable[[Tensor], Tensor]) -> float:
            return float((by(broken) - by(reward)).abs().mean())

        return {
            "cliff/ties": float((best.sum(1) > 1).double().mean()),
            "cliff/advantage": moved(lambda r: advantages(Normalise(), r)),
            "cliff/centred": moved(lambda r: advantages(Normalise(scale="none"), r)),
            "cliff/policy": moved(lambda r: soft_policy(r, self.alpha)) * reward.shape[1],
        }


def advantages(part: Normalise, reward: Tensor) -> Tensor:
    """The advantage of each response, [P, K], from the rewards of K responses to each of P prompts."""
    group = torch.arange(len(reward), device=reward.device).repeat_interleave(reward.shape[1])
    rows = reward.flatten()
    return part(make_batch(mask=torch.ones_like(rows)[:, None], reward=rows, group=group))[:, 0].view_as(reward)


def soft_policy(value: Tensor, alpha: float) -> Tensor:
    r"""The optimum of :math:`E_\pi[Q] + \alpha H(\pi)`, :math:`\mathrm{softmax}(Q/\alpha)`.

    Another Q' moves it by at most :math:`\|Q - Q'\|_\infty/\alpha` in L1, and it gives away at most
    :math:`\alpha\log n` of the largest value.
    """
    return tilt(torch.ones_like(value), value, 1 / alpha)


@study(arxiv="2507.20150", confidence="abstract", use="policyopt train grpo --task ties:0.01 --with policy-cliff")
def policy_cliff(epsilon: float = 1e-3, alpha: float = 0.1) -> tuple[Probe, ...]:
    r"""How far credit and the best policy jump when a tiny reward breaks a tie between answers.

    .. math:: \pi_\alpha = \mathrm{softmax}(Q/\alpha),\qquad \|\pi_\alpha(Q) - \pi_\alpha(Q')\|_1 \le \|Q - Q'\|_\infty / \alpha,\qquad
              0 \le \max Q - E_{\pi_\alpha}[Q] \le \alpha\log n

    Where several answers tie, the best policy jumps at the smallest change of the reward; an entropy term (alpha) makes
    the map from rewards to policies continuous, at the price of that much reward. Group-normalised advantages repeat the
    cliff: an ``epsilon`` between equal rewards becomes an advantage of full size; mean-centred ones (``dr-grpo``) stay
    small. Both are measured at evaluations (:class:`~policyopt.methods.analysis.policy_cliff.RewardCliff`); ``--task
    ties:EPSILON`` is a testbed whose questions have several right answers, one of them worth EPSILON more. The guards are
    no method of their own: ``dr-grpo``, and an :class:`~policyopt.parts.EntropyBonus` among the regularizers. Source:
    arXiv:2507.20150, known from its abstract; the paper is theory, the bounds are elementary.
    """
    return (RewardCliff(epsilon=epsilon, alpha=alpha),)
