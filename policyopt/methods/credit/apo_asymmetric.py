"""APO, the asymmetric one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import Aggregate, Regularizer, Unit, Wrapper, part
from policyopt.parts import Normalise, RowWeight, SeqMeanTokenMean, TokenMean, Weighed
from policyopt.parts.pairing.pairs import row_credit
from policyopt.parts.regularizer.kl import KL
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch, masked


@part
class LongWrong(RowWeight):
    r"""Wrong answers count more the longer they are than the right ones to their prompt.

    .. math:: w_i = 2 - b^{-(l_i - \bar l^+)} \text{ where } c_i = 0,\ l_i > \bar l^+,\qquad \text{else } 1

    l are lengths in tokens, :math:`\bar l^+` is the mean length of the right answers to the prompt; without one w is 1. w lies in [1, 2).
    Source: APO, arXiv:2506.21655, STCR; b from the authors' code (Indolent-Kawhi/View-R1).
    """

    base: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.00001
    """b; 1 weighs all alike."""

    needs: ClassVar[frozenset[str]] = frozenset({"correct"})
    unit: ClassVar[Unit] = "group"

    def __call__(self, batch: Batch) -> Tensor:
        right, length = (batch.correct > 0.5).to(batch.reward), batch.length().to(batch.reward)
        excess = (length - group_mean(length, batch.group, right)).clamp(min=0)
        counts = (right == 0) & (group_sum(right, batch.group) > 0)
        return torch.where(counts, 2 - (-excess * math.log(self.base)).exp(), 1.0)


@part
class LooseWhereHard(RowWeight):
    r"""Good rows count less the harder their prompt is.

    .. math:: k_i = 1 - e^{-e\,(1 - d)} \text{ where } A_i > 0,\ 0 < d < 1,\qquad \text{else } 1

    d is the share of wrong answers to the prompt (1 - ``pass_rate``), the e in the exponent Euler's number. Source: APO,
    arXiv:2506.21655, DADS, and the authors' code (Indolent-Kawhi/View-R1).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"pass_rate"})

    def __call__(self, batch: Batch) -> Tensor:
        rate = batch.pass_rate.to(batch.mask)
        loose = (row_credit(batch) > 0) & (rate > 0) & (rate < 1)
        return torch.where(loose, 1 - (-math.e * rate).exp(), 1.0)


@part
class MeanOfItsOwn(Wrapper, Regularizer):
    r"""Another loss under an aggregation of its own, :math:`\sum_{i,t} share_{i,t}\,\ell_{i,t}`, however the surrogate is aggregated."""

    inner: Regularizer = KL()
    """The loss, one number for each token."""
    aggregate: Aggregate = SeqMeanTokenMean()
    """How it becomes one number."""

    unit: ClassVar[Unit] = "batch"

    def __call__(self, batch: Batch) -> Tensor:
        return (self.aggregate(batch) * masked(self.inner(batch), batch.mask)).sum()

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.inner.metrics(batch)


@method(
    parent=grpo,
    arxiv="2506.21655",
    code="Indolent-Kawhi/View-R1",
    confidence="code",
    claim=Claim(
        "Right answers to hard prompts are let go from the reference, long wrong ones pushed down harder: more is solved than with GRPO.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.01),),
        both={"kl-coef": 0.04},
        ours={"base": 1.02},
    ),
)
def apo_asymmetric(
    base: float = 1.00001,
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 1e-3,
    group_size: int = 8,
) -> Recipe:
    r"""Asymmetric Policy Optimization: wrong answers that are too long count more, and right ones to hard prompts are held less.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t}\max(-r_{i,t}w_iA_i, -\mathrm{clip}(r_{i,t})w_iA_i) + \frac\beta N\sum_i k_i\,\frac1{|y_i|}\sum_t k3_{i,t}

    w is above 1 for wrong answers longer than the right ones to their prompt (:class:`LongWrong`), k below 1 for good answers to
    hard prompts (:class:`LooseWhereHard`). ``base`` 1.00001 is for thousands of tokens: an excess of l tokens weighs :math:`2 - b^{-l}`. With b = 1 and k = 1 it is GRPO with
    a token-mean. Source: arXiv:2506.21655 and the authors' code (Indolent-Kawhi/View-R1), which takes as right what has a reward of 1
    or more. Our reading: the judge says what is right.
    """
    parent = grpo(low, high, kl_coef=0.0, group_size=group_size)
    held = MeanOfItsOwn(inner=KL(coef=kl_coef, rows=LooseWhereHard()))
    return parent.replace(
        advantage=Weighed(of=Normalise(eps=1e-9), by=LongWrong(base=base)),
        aggregate=TokenMean(),
        regularizers=(held,) if kl_coef else (),
    )
