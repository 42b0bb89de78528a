"""Curry-DPO."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.control import counting
from policyopt.groups import group_max
from policyopt.methods.preference.dpo import dpo
from policyopt.part import Count, Filter, Unit, part
from policyopt.parts import BestWorst, Reset
from policyopt.parts.pairing.pairs import first_best
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.given import Scored


@part
class RoundOfPairs(Filter):
    r"""Of each prompt the best response and the one of the ``number``-th largest gap to it, :math:`g_j = s_1 - s_j`, by reward.

    Round 1 is the easiest: the best against the worst. A response that ties with the best is no opponent, and a prompt
    with fewer opponents than that has no pair. Of equal rewards the first response is the best, and the first opponent
    comes first. Source: Curry-DPO, arXiv:2403.07230. Our reading: ties, which the paper does not speak of.
    """

    number: Count = 1
    """Which round; a controller moves it."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rows of the best response and of its opponent in this round, [P] each, by prompt."""
        reward, group = batch.reward, batch.group
        best = first_best(reward, group, torch.ones_like(group, dtype=torch.bool))
        left = reward < group_max(reward, group)
        for _ in range(self.number - 1):
            left = left.index_fill(0, first_best(-reward, group, left), False)
        other = first_best(-reward, group, left)
        return best[torch.isin(group[best], group[other])], other

    def __call__(self, batch: Batch) -> Tensor:
        none = torch.zeros_like(batch.group, dtype=torch.bool)
        return none.index_fill(0, torch.cat(self.pairs(batch)), True)


@method(
    parent=dpo,
    arxiv="2403.07230",
    confidence="secondary",
    claim=Claim(
        "Several pairs of each prompt, from easy to hard, each round held to the policy of the last: better than one pair of each.",
        "pairs",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
    ),
)
def curry_dpo(beta: float = 0.1, rounds: int = 3, every: int = 10, responses: int = 4) -> Recipe:
    r"""Curry-DPO: pairs of each prompt from easy to hard, in rounds, each of which is held to the policy at its start.

    .. math:: s_1 \ge \dots \ge s_K,\qquad \text{round } r: (y_1, y_{K+1-r}),\qquad
              L_r = -\log\sigma\Big(\beta\log\frac{\pi_\theta}{\pi_{r-1}}(y_w) - \beta\log\frac{\pi_\theta}{\pi_{r-1}}(y_l)\Big)

    The task brings about K = ``responses`` responses to each prompt, with scores. Round 1 has the best against the worst, the last one the best against
    the next best: a gap is the smaller, the harder the pair. Each of the ``rounds`` rounds takes ``every`` steps; then the
    reference becomes the policy, so that the loss is log 2 again. One round is DPO on best and worst.

    Source: arXiv:2403.07230 (UltraFeedback and OpenAssistant, 4 rated answers to each prompt, 3 rounds); beta and learning
    rate are not known. Our reading: the optimiser goes on from round to round; a response tied with the best is left out.
    """
    return (
        dpo(beta)
        .replace(
            source=Scored(size=responses),
            filter=(RoundOfPairs(),),
            controllers=counting("filter.RoundOfPairs.number", 1, rounds, every),
            reference=Reset(every=every),
        )
        .set("surrogate.choose", BestWorst())
    )
