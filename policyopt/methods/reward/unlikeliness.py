"""Unlikeliness reward."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_rank, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Shape, Unit, part
from policyopt.parts import MixedOutcomes
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Group


@part
class RankDiscount(Shape):
    r"""Discount the reward of responses that were likely already.

    .. math:: \tilde R_i = R_i\Big(1 - \beta\,\frac{k_i}{G}\Big)

    k_i is the rank of row i among all G rows of its group by log-probability under the policy that wrote them, 0 for
    the least likely. Source: arXiv:2506.02355 and the authors' code, which ranks by the mean over tokens. Our reading:
    rows of equal likelihood rank in the order of the batch.
    """

    coef: Fraction = 0.25
    """beta: what the most likely response loses at most."""
    length_normalised: bool = True
    """Rank by the mean log-probability of a token; otherwise by that of the whole response."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Batch:
        size = group_sum(torch.ones_like(batch.reward), batch.group)
        return batch.replace(reward=batch.reward * (1 - self.coef * self.rank(batch) / size))

    def log_likelihood(self, batch: Batch) -> Tensor:
        """What is ranked: log-probability of each row, [N], in nats (per token)."""
        total = masked(batch.old_logp, batch.mask).sum(-1)
        return total / batch.mask.sum(-1).clamp(min=1) if self.length_normalised else total

    def rank(self, batch: Batch) -> Tensor:
        """k [N], 0 for the least likely row of a group."""
        return group_rank(self.log_likelihood(batch), batch.group)


@method(
    parent=grpo,
    arxiv="2506.02355",
    code="AndreHe02/rewarding-unlikely-release",
    confidence="code",
    claim=Claim(
        "Less reward for what was likely already: GRPO no longer only sharpens, and more is solved within "
        "several attempts.",
        "many-answers",
        (Effect("pass@4", "higher", 0.01), Effect("distinct", "higher", 0.1)),
        ours={"kl-coef": 0.04},
    ),
)
def unlikeliness(
    beta_rank: float = 0.25,
    length_normalised: bool = True,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.1,
    epochs: int = 2,
    rounds: int = 10,
    group_size: int = 8,
) -> Recipe:
    r"""GRPO with less reward for right answers that were likely already, against the sharpening of the distribution.

    .. math:: \tilde R_i = R_i\Big(1 - \beta_{rank}\,\frac{k_i}{G}\Big),\qquad
              A_i = \frac{\tilde R_i - \mathrm{mean}(\tilde R)}{\mathrm{std}(\tilde R) + \epsilon}

    k_i is the rank of row i among the G rows of its group by mean log-probability, 0 for the least likely. Prompts that
    were answered all right or all wrong are left out and others drawn, at most ``rounds`` times. Two epochs have a
    like effect: what was likely is clipped first. Source: arXiv:2506.02355; formula and defaults from the authors' code,
    with groups of 32 there. The text counts ranks from the other end, a shift by beta/G.
    """
    return grpo(low, high, kl_coef=kl_coef, epochs=epochs).replace(
        source=Group(size=group_size, rounds=rounds),
        shape=(RankDiscount(coef=beta_rank, length_normalised=length_normalised),),
        filter=(MixedOutcomes(),),
    )
