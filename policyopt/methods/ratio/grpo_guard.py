"""GRPO-Guard."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim
from policyopt.methods.group.grpo import grpo
from policyopt.part import Positive, Ratio, Statistic, Weight, part
from policyopt.parts import JSD, Reset, TokenRatio
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch

KL_FROM_OLD = JSD(beta=0.0, target="reference")
r"""KL of the policy's next-token distribution from the reference's, :math:`\sum_v \pi_{ref}(v)\log\frac{\pi_{ref}(v)}{\pi_\theta(v)}`."""


def centred(log_ratio: Tensor, kl: Tensor, scale: Tensor) -> Tensor:
    """A log-ratio plus the KL that its mean falls short of 0 by, times a scale."""
    return (log_ratio + kl) * scale


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
        return (KL_FROM_OLD,)

    def __call__(self, batch: Batch) -> Tensor:
        log_ratio = TokenRatio()(batch)
        return centred(log_ratio, batch.stat(KL_FROM_OLD), by_position(self.scale, log_ratio))


def by_position(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value per position, [N, T]; the last one stands for all positions after it."""
    index = torch.arange(like.shape[1], device=like.device).clamp(max=len(values) - 1)
    return like.new_tensor(values)[index].expand_as(like)


@part
class PositionWeight(Weight):
    """A constant factor for each position of a response. Source: GRPO-Guard, arXiv:2510.22319 (one over the length of
    the denoising step)."""

    weights: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    """Factors from the first position on; the last one stands for all positions after it."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return by_position(self.weights, log_ratio)


@method(
    parent=grpo,
    arxiv="2510.22319",
    code="yifan123/flow_grpo",
    confidence="code",
    claim=Claim(
        "A clip that is centred at every step of denoising keeps flow models from being optimised beyond what "
        "the reward means.",
        beyond="It is about flow models that make images in steps of denoising, and about the log-ratios of Gaussians.",
    ),
)
def grpo_guard(
    low: float | None = 0.2,
    high: float | None = 0.2,
    scale: tuple[float, ...] = (1.0,),
    step_weight: tuple[float, ...] = (1.0,),
    minibatches: int = 2,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO whose log-ratios are centred and scaled at every step, so that the clip acts on both sides alike.

    .. math:: \log r'_{i,t} = \big(\log r_{i,t} + KL(\pi_{old}\|\pi_\theta)_{i,t}\big)\,s_t,\qquad
              L = \frac1N\sum_i\frac1{|y_i|}\sum_t w_t\max(-r'A, -\mathrm{clip}(r', 1-\epsilon_l, 1+\epsilon_h)A)

    Log-ratios of samples from the old policy have the mean -KL, so that good tokens hardly reach the upper bound. The
    paper is about flow models: a denoising step is a Gaussian with standard deviation :math:`\sigma_t\sqrt{dt_t}`, which
    is s_t, and w_t = 1/dt_t. Our reading for tokens: s_t = w_t = 1 (``scale`` and ``step_weight`` give them by
    position, the last value for all later ones), KL of whole next-token distributions, and the reference, reset to the
    policy before every step, as the old policy. The KL has a gradient, as in the code. Source: arXiv:2510.22319 and the
    authors' code (yifan123/flow_grpo, read in the fork zhtmike/flow_grpo), whose two updates per batch are the default. Not
    taken over: its groups of 24, its deviation (ddof 0, plus 1e-4), its clamp of advantages to +-5, which no group of up
    to 26 reaches, its clip of 2e-6 for means over a whole image; the clip is GRPO's.
    """
    return grpo(low, high, kl_coef=0.0, group_size=group_size).replace(
        ratio=CentredRatio(scale=scale),
        weight=() if set(step_weight) == {1.0} else (PositionWeight(weights=step_weight),),
        reference=Reset(every=1),
        update=Update(minibatches=minibatches),
    )
