"""TW-GRPO."""

from __future__ import annotations

import math
import re
from collections.abc import Set
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.items import judge
from policyopt.judging.answers import find_answer
from policyopt.methods.group.grpo import grpo
from policyopt.part import Statistic, Weight, part
from policyopt.parts import GroupStatistic, Normalise, TokenMean
from policyopt.parts.statistic.group import Together
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch

LIMIT = 11.0
"""What differences of log-probabilities are held to."""


@part
class Disagreement(GroupStatistic):
    r"""How far the responses to a prompt disagree about the next token at a position, from 0 (least) to 1 (most of the group); the same
    for all of them.

    .. math:: D_t = \frac1G\sum_i\sum_v\big(e^{d} - d - 1\big),\quad d = \mathrm{clip}(\bar\ell_{t,v} - \ell_{i,t,v}, -11, 11),\qquad
              \frac{D_t - \min_u D_u}{\max_u D_u - \min_u D_u + 10^{-8}}

    l are the log-probabilities of all V tokens, :math:`\bar\ell` their mean over the G responses. Where a response has ended, or
    somebody else wrote, stands the uniform distribution. Positions at which no response has a token are not there. Source: TW-GRPO,
    arXiv:2505.24718, and the authors' code, whose sum over the vocabulary is not weighted.
    """

    def over(self, group: Together) -> Tensor:
        found = torch.zeros_like(group.mask[0])
        for places, logp in group.chunks():
            ended = group.mask[:, places, None] == 0
            logp = torch.where(ended, -math.log(logp.shape[-1]), logp)
            d = (logp.mean(0) - logp).clamp(-LIMIT, LIMIT)
            found[places] = (d.exp() - d - 1).sum(-1).mean(0)
        there = group.mask.amax(0) > 0
        if not bool(there.any()):
            return torch.zeros_like(group.mask)
        low, high = found[there].min(), found[there].max()
        return ((found - low) / (high - low + 1e-8)).expand_as(group.mask)


@part
class DisagreementWeight(Weight):
    r"""Up to :math:`\alpha` times the loss where the group disagrees: :math:`w_t = 1 + (\alpha - 1)\,D_t`, with D from 0 to 1.

    Source: TW-GRPO, arXiv:2505.24718.
    """

    alpha: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.7
    """alpha, the weight of the position at which the group disagrees most."""
    statistic: GroupStatistic = Disagreement()
    """D."""

    @property
    def fixed(self) -> tuple[Statistic, ...]:
        return (self.statistic,)

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return 1 + (self.alpha - 1) * batch.fixed(self.statistic)


def subset_credit(chosen: Set[str], right: Set[str]) -> float:
    """The share of the right options that were chosen; 0 where a wrong one is among them, or none was. Source: TW-GRPO, arXiv:2505.24718."""
    return len(chosen) / len(right) if chosen and chosen <= right else 0.0


@judge()
def several(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """The judge of questions with several right options, each a letter: :func:`subset_credit`, and 1 where there is an answer at all.

    ``--judge policyopt.methods.credit.tw_grpo:several``, with answers such as ``A, C``.
    """
    said = find_answer(response)
    credit = subset_credit(letters(said or ""), letters(answer))
    return {"score": credit + (said is not None), "correct": credit == 1, "formatted": said is not None}


def letters(text: str) -> frozenset[str]:
    """The options that a text names: its letters that stand alone."""
    return frozenset(re.findall(r"\b[A-Z]\b", text))


@method(
    parent=grpo,
    arxiv="2505.24718",
    code="longmalongma/TW-GRPO",
    confidence="code",
    claim=Claim(
        "Positions at which the responses to a prompt disagree carry what is to be learned: weighed more, as many steps lead further.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        theirs={"kl-coef": 0.0},
    ),
)
def tw_grpo(
    alpha: float = 1.7, low: float | None = 0.2, high: float | None = 0.2, epochs: int = 1, group_size: int = 8
) -> Recipe:
    r"""Token-weighted GRPO: more weight on positions at which the responses to a prompt disagree about the next token.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} w_t\max(-r_{i,t}A_i, -\mathrm{clip}(r_{i,t}, 1\pm\epsilon)A_i),\qquad
              w_t = 1 + (\alpha - 1)\frac{D_t - \min D}{\max D - \min D}

    D is how far the next-token distributions of the group differ at position t (:class:`Disagreement`); positions are aligned by their
    number, so that responses which say the same one word later disagree. alpha 1 is GRPO with a token mean. Advantages are over the
    standard deviation plus 1e-4. Source: arXiv:2505.24718 and the authors' code: alpha 1.7 from the training script, no KL. Our reading:
    weights are constants, of the policy when the batch is annotated (the code lets gradient leak through those of each
    update). Questions with several right options have a judge of their own, :func:`several`; what turns a question with one right
    option into one with several is a matter of the data.
    """
    return grpo(low, high, kl_coef=0.0, epochs=epochs, group_size=group_size).replace(
        advantage=Normalise(eps=1e-4),
        weight=(DisagreementWeight(alpha),),
        aggregate=TokenMean(),
    )
