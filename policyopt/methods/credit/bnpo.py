"""BNPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum, group_variance
from policyopt.methods.baseline.reinforce import reinforce
from policyopt.part import Advantage, Finite, Positive, Unit, part
from policyopt.parts import Decoupled, PPOClip
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class BetaNormalise(Advantage):
    r"""Reward minus the mean of its group, over a Beta density that follows the success rates of the batch.

    .. math:: A_i = \frac{R_i - p_q}{f(p_q)},\qquad f(p) = \frac{p^{\alpha-1}(1-p)^{\beta-1}}{B(\alpha,\beta)},\qquad
              \alpha = \max(1 + \tfrac a3, 1),\ \beta = \max(1 + \tfrac b3, 1),\qquad
              (a, b) = \Big(\frac{\mu(1-\mu)}{\nu} - 1\Big)(\mu,\, 1-\mu)

    p_q is the mean reward of prompt q; mu and nu are mean and variance (ddof 1) of p over the prompts of the batch, each of which
    counts once, and a, b the Beta law of these moments. 1/f is capped. With alpha = beta = 1 nothing is divided by
    (REINFORCE with a mean baseline), with alpha = beta = 3/2 by the standard deviation of a coin up to a constant (GRPO). Source: BNPO,
    arXiv:2506.02864, and the authors' code (changyi7231/BNPO). Our reading: rates that are all equal, and a single prompt,
    are not normalised (the code divides by 0 in the first case).
    """

    worst: Finite = 0.0
    """The reward that counts as 0."""
    best: Finite = 1.0
    """The reward that counts as 1."""
    cap: Positive = 1e6
    """Largest 1/f."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.best <= self.worst:
            raise ValueError(f"best is {self.best:g} and worst {self.worst:g}: best must be the larger reward")

    def __call__(self, batch: Batch) -> Tensor:
        reward, rate = self.unit_reward(batch), self.rate(batch)
        return ((reward - rate) * self.weight(batch))[:, None] * batch.mask

    def unit_reward(self, batch: Batch) -> Tensor:
        """R, [N]: the reward from 0 for the worst to 1 for the best."""
        return (batch.total_reward() - self.worst) / (self.best - self.worst)

    def rate(self, batch: Batch) -> Tensor:
        """p of the prompt of each row, [N]."""
        return group_mean(self.unit_reward(batch), batch.group)

    def shape(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """alpha and beta, [N] each and the same in all rows, in float64."""
        rate = self.rate(batch).double().clamp(0, 1)
        once = 1 / group_sum(torch.ones_like(rate), batch.group)  # each prompt counts once
        mean, variance = group_mean(rate, None, once), group_variance(rate, None, 1, once)
        size = torch.where(variance > 1e-12, mean * (1 - mean) / variance.clamp(min=1e-12) - 1, 0.0)
        return (1 + size * mean / 3).clamp(min=1), (1 + size * (1 - mean) / 3).clamp(min=1)

    def weight(self, batch: Batch) -> Tensor:
        """1/f at the rate of each row's prompt, [N]."""
        alpha, beta = self.shape(batch)
        rate = self.rate(batch).double().clamp(0, 1)
        log_beta = alpha.lgamma() + beta.lgamma() - (alpha + beta).lgamma()
        log_density = torch.xlogy(alpha - 1, rate) + torch.xlogy(beta - 1, 1 - rate) - log_beta
        return (-log_density).exp().clamp(max=self.cap).to(batch.reward)


@method(
    parent=reinforce,
    arxiv="2506.02864",
    code="changyi7231/BNPO",
    confidence="code",
    claim=Claim(
        "Rewards are normalised by a Beta law that follows training, which steadies the gradient: more is solved than with GRPO.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.01),),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def bnpo(
    components: tuple[str, ...] = (),
    low: float | None = 0.2,
    high: float | None = 0.28,
    dual: float | None = 10.0,
    group_size: int = 8,
) -> Recipe:
    r"""Beta Normalization Policy Optimization: the centred reward over a Beta density fitted to the success rates of the batch.

    .. math:: A_i = \frac{R_i - p_{q(i)}}{f_{\alpha,\beta}(p_{q(i)})},\qquad
              L = \frac1N\sum_i\sum_t \max\big(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1-\epsilon_l, 1+\epsilon_h)A_i\big)

    Rewards lie between 0 and 1 (``--recipe.advantage.worst`` and ``best`` for others). With ``components`` each named part of the
    reward ("correct", "formatted", what the judge gives, or "reward" itself) has an advantage and a Beta law of its own, and
    A is their mean. A bad token's loss ends at the ratio ``dual``. Source: arXiv:2506.02864 and the authors' code
    (changyi7231/BNPO), whose groups have 16 responses; no KL and no entropy term.
    """
    one = BetaNormalise()
    share = tuple((name, 1 / len(components)) for name in components)
    return reinforce(baseline="group-mean", group_size=group_size).replace(
        advantage=Decoupled(inner=one, weights=share, whiten=False) if share else one,
        surrogate=PPOClip(low=low, high=high, dual=dual),
    )
