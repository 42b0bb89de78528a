"""GRPO-lambda, the one with a length penalty."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_std, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Fraction, Unit, part
from policyopt.parts import Correctness, LengthReward, LengthScale, RowSelector
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


@part
class BestGroups(RowSelector):
    """The responses to the prompts of the batch that are answered right most often: the share ``top`` of all prompts, rounded up, at
    least one; of equally good ones those with the longer responses."""

    top: Fraction = 0.2
    """lambda."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        prompts, index = torch.unique(batch.group, return_inverse=True)
        none = torch.zeros(len(prompts), dtype=batch.reward.dtype, device=batch.reward.device)
        length, rate = (
            none.scatter(0, index, group_mean(x.to(none), batch.group)) for x in (batch.length(), batch.correct)
        )
        order = (-length).argsort(stable=True)
        order = order[(-rate[order]).argsort(stable=True)]
        best = order[: max(1, math.ceil(self.top * len(prompts) - 1e-9))]
        chosen = torch.zeros_like(none, dtype=torch.bool)
        chosen[best] = True
        return chosen[index]


@part
class AroundRight(LengthScale):
    """From the mean length of the right responses to a prompt to a standard deviation beyond it; none where none is right.

    The deviation is over all of them (not one less), and at least 0.0001 tokens.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        length, right = batch.length().to(batch.reward), (batch.correct > 0.5).to(batch.reward)
        mean = group_mean(length, batch.group, right)
        spread = group_std(length, batch.group, 0, right).clamp(min=1e-4)
        mean = torch.where(group_sum(right, batch.group) > 0, mean, torch.nan)
        return mean, mean + spread


@method(
    parent=grpo,
    arxiv="2505.18086",
    confidence="secondary",
    claim=Claim(
        "A price on length for the prompts alone that are answered right most often: answers become shorter, and as many are right.",
        "verbose",
        (Effect("length", "lower", 10.0), Effect("accuracy", "higher", -0.02)),
        against="grpo",
        theirs={"kl-coef": 0.0},
    ),
)
def grpo_lambda(
    top: float = 0.2, alpha: float = 0.6, low: float | None = 0.2, high: float | None = 0.2, kl_coef: float = 0.0, group_size: int = 8,
) -> Recipe:  # fmt: skip
    r"""GRPO-lambda: only the prompts of a batch that are answered right most often pay for length; all others have GRPO's reward.

    .. math:: R_i = c_i\,\Big(1 - \alpha\,\sigma\Big(\frac{|y_i| - \mu_+}{\sigma_+}\Big)\Big) \text{ in the best } \lceil\lambda K\rceil \text{ of } K \text{ groups},\qquad R_i = c_i
              \text{ elsewhere}

    Mean and deviation are those of the right responses of the group. A right answer of mean length has 1 - alpha/2 there, and with alpha below 1
    every right answer has more than a wrong one. ``top`` (lambda) 1 is a price on length always. Prompts that the policy cannot do yet are never hurried, which is
    what makes length penalties collapse. Source: arXiv:2505.18086 from third parties' accounts; lambda 0.2 is the paper's, alpha 0.6 theirs. Not the method of
    this name with eligibility traces (arXiv:2510.00194). Our reading: of equal rates the longer responses first, deviation without Bessel's correction.
    """
    paid = LengthReward(curve="sigmoid", reference=AroundRight(), right=(0.0, -alpha), rows=BestGroups(top=top))
    return grpo(low, high, kl_coef=kl_coef, group_size=group_size).replace(shape=(Correctness(wrong=0.0), paid))
