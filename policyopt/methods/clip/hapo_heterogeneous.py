"""HAPO, the heterogeneous one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_sum, whiten
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Advantage, Fraction, Level, NonNegative, Positive, Unit, Weight, part
from policyopt.parts import Bounded, Bounds, Normalise, PPOClip
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


def entropy_scale(entropy: Tensor, mask: Tensor, pivot: float) -> Tensor:
    r"""Where the entropy of each token lies among those of the batch, [N, T] in [-1, 1].

    .. math:: h = \log\max(H, 10^{-8}) - \mathrm{quantile}_{pivot},\qquad \hat h = h/\max h\ (h > 0),\quad h/|\min h|\ (h \le 0)

    The quantile is the nearest value. No gradient.
    """
    level = entropy.detach().clamp(min=1e-8).log()
    ranked = level[mask.bool()].sort().values
    if not len(ranked):
        return torch.zeros_like(level)
    level = masked(level - ranked[round(pivot * (len(ranked) - 1))], mask)
    top, bottom = level.max(), -level.min()
    return torch.where(level > 0, level / top, level / torch.where(bottom > 0, bottom, 1))


@part
class EntropyBounds(Bounds):
    r"""Wider upwards for uncertain tokens, wider downwards for confident ones.

    .. math:: lo = 1 - \epsilon_{low}\,(1 + \alpha\max(-\hat h, 0)),\qquad hi = 1 + \epsilon_{high}\,(1 + \alpha\max(\hat h, 0))

    h is the position of the token's entropy in the batch, see :func:`entropy_scale`. Source: HAPO, arXiv:2509.16591,
    and the authors' code (starriver030515/HAPO). Our reading: the entropy is the current policy's, without gradient;
    confident tokens have h < 0, as the text says (the released code turns the sign).
    """

    alpha: NonNegative = 1.0
    """How far the bounds may widen, as a multiple of the distance."""
    pivot: Fraction = 0.8
    """The quantile of entropy at which nothing changes."""

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    unit: ClassVar[Unit] = "batch"
    levels: ClassVar[frozenset[Level]] = frozenset({"token"})

    def scale(self, batch: Batch) -> Tensor:
        """h, [N, T]."""
        return entropy_scale(batch.entropy, batch.mask, self.pivot)

    def __call__(self, low: float, high: float, log_ratio: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        h = self.alpha * self.scale(batch)
        return 1 - low * (1 - h.clamp(max=0)), 1 + high * (1 + h.clamp(min=0))


@part
class TokenNormalise(Advantage):
    r"""GRPO's advantage with statistics in which every response counts as often as it has tokens.

    .. math:: A_i = \frac{R_i - \mu}{\sigma + \epsilon},\qquad
              \mu = \frac{\sum_j |y_j| R_j}{\sum_j |y_j|},\qquad \sigma^2 = \frac{\sum_j |y_j|(R_j-\mu)^2}{\sum_j |y_j|}

    The sums run over the responses to one prompt, so that the advantages of their tokens add up to zero. A group in
    which any A is as large as ``fallback`` takes GRPO's advantage instead. Source: HAPO, arXiv:2509.16591, and the
    authors' code (starriver030515/HAPO).
    """

    eps: NonNegative = 1e-6
    """Added to the standard deviation."""
    fallback: Positive | None = 5.0
    """Size of A at which the whole group falls back; None for never."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def __call__(self, batch: Batch) -> Tensor:
        reward, weight, group = batch.total_reward(), batch.mask.sum(-1), batch.group
        advantage = whiten(reward, group, weight, eps=self.eps)
        large = torch.zeros_like(reward) if self.fallback is None else (advantage.abs() >= self.fallback).to(reward)
        plain = Normalise(centre="group", scale="group", eps=self.eps)(batch)
        return torch.where(group_sum(large, group)[:, None] > 0, plain, advantage[:, None] * batch.mask)


@part
class EntropyRedistribution(Bounded, Weight):
    r"""Strengthen uncertain tokens that have moved, mute confident ones that have not.

    .. math:: w_{i,t} = 1 + \beta\hat h_{i,t}\ \text{ where }\ (\hat h > 0) \ne \text{neutral},\quad 1 \text{ elsewhere},\qquad
              \text{neutral}:\ \tfrac{1 + lo}{2} < r < \tfrac{1 + hi}{2}

    h is :func:`~policyopt.methods.clip.hapo_heterogeneous.entropy_scale`, lo and hi the bounds of the token. The loss of a clipped
    surrogate is proportional to the advantage, so the factor on one is the factor on the other. Source: HAPO,
    arXiv:2509.16591, and the authors' code (starriver030515/HAPO).
    """

    bounds: EntropyBounds = EntropyBounds()
    """The bounds of the surrogate."""
    beta: Fraction = 1.0
    """How much; at 1 the most confident token of the batch may lose all of its weight."""

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        low, high = self.window(log_ratio, batch)
        ratio, h = log_ratio.detach().exp(), self.bounds.scale(batch)
        neutral = ((1 + low) / 2 < ratio) & (ratio < (1 + high) / 2)
        return torch.where((h > 0) ^ neutral, 1 + self.beta * h, 1.0)

    def metrics(self, log_ratio: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"entropy/factor": self(log_ratio, batch)}


@method(
    parent=dapo,
    arxiv="2509.16591",
    code="starriver030515/HAPO",
    confidence="code",
    claim=Claim(
        "Tokens treated by their entropy, in bounds and advantage, do better than DAPO's treatment of all alike.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
        both={"recipe.update.minibatches": 4},
        ours={"overlong-share": 0.2},
    ),
)
def hapo_heterogeneous(
    low: float | None = 0.2,
    high: float | None = 0.2,
    entropy_pivot: float = 0.8,
    clip_alpha: float = 1.0,
    adv_beta: float = 1.0,
    fallback_threshold: float | None = 5.0,
    dual_clip: float | None = None,
    overlong_share: float = 0.4,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 8,
) -> Recipe:
    r"""DAPO that treats every token by its entropy: wider bounds, and advantages that are strengthened or muted.

    .. math:: lo = 1 - \epsilon_l(1 + \alpha\max(-\hat h, 0)),\qquad hi = 1 + \epsilon_h(1 + \alpha\max(\hat h, 0)),\qquad
              A' = A\,(1 + \beta\hat h)\ \text{ if }\ (\hat h > 0) \ne \text{neutral, else } A

    h in [-1, 1] is the position of the token's entropy in the batch, 0 at the quantile ``entropy_pivot``; a token is
    neutral while its ratio has not gone half of the way to a bound. A is the reward over statistics of the group in
    which every token counts once (population std, eps 1e-6); a group with an |A| of ``fallback_threshold`` takes
    GRPO's. Defaults from the authors' scripts, which also have ``dual_clip`` 10 and 16 responses.

    Our reading: confident tokens have h < 0, as the text says; the released code turns the sign. The sampler's
    temperature, which the paper varies with the entropy of each position, is the recipe's own constant here.
    """
    bounds = EntropyBounds(alpha=clip_alpha, pivot=entropy_pivot)
    recipe = dapo(
        low, high, overlong_share=overlong_share, rounds=rounds, minibatches=minibatches, group_size=group_size
    )
    return recipe.replace(
        advantage=TokenNormalise(fallback=fallback_threshold),
        surrogate=PPOClip(low=low, high=high, bounds=bounds, dual=dual_clip),
        weight=(EntropyRedistribution(low=low, high=high, bounds=bounds, beta=adv_beta),),
    )
