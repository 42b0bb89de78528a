"""DisCO."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_max, group_mean, group_sum
from policyopt.methods.group.grpo import grpo
from policyopt.part import NonNegative, Part, Positive, Regularizer, Unit, part
from policyopt.parts import Contrast, Normalise, Proximal, RowScore, RowWeight
from policyopt.parts.pairing.pairs import row_credit
from policyopt.parts.regularizer.proximal import Deviation
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch

# Positives against negatives -----------------------------------------------------------------------------------------


@part
class HardNegatives(Contrast):
    r"""Each good response against the bad ones of its prompt, those with the highest scores first.

    .. math:: L = -\frac1Q\sum_q \sum_{i\in P_q}\tilde w_i\Big(s_i - \tau\log\frac{1}{|N_q|}\sum_{j\in N_q} e^{s_j/\tau}\Big),\qquad
              \tilde w_i = \frac{w_i}{\sum_{j\in P_q} w_j}

    P_q and N_q are the responses of prompt q with an advantage above and below 0; a prompt without either adds 0, but
    counts in Q, the number of prompts. The weight of a prompt does not depend on its accuracy. Sources: DisCO,
    arXiv:2505.12366, where w is 1; DRPO, arXiv:2510.04474, where it is larger for shorter ones.
    """

    score: RowScore = RowScore(reduce="mean")
    """The number that stands for a response."""
    tau: Positive | None = 10.0
    """tau; None takes the plain mean of the negatives (tau without bound)."""
    weight: RowWeight | None = None
    """w, how much the good responses to a prompt count among themselves; None: all alike."""

    unit: ClassVar[Unit] = "batch"

    def inner(self) -> Iterator[Part]:
        yield self.score
        if self.weight is not None:
            yield self.weight

    def rows(self, batch: Batch) -> Tensor:
        score, credit, group = self.score(batch), row_credit(batch), batch.group
        good, bad = (credit > 0).to(score), (credit < 0).to(score)
        weight = good if self.weight is None else good * self.weight(batch)
        total = group_sum(weight, group)
        counts = (weight > 0) & (group_sum(bad, group) > 0)
        share = weight / torch.where(total > 0, total, 1.0) * len(group) / len(group.unique())
        return torch.where(counts, share * (self.negative(score, bad, group) - score), 0.0)

    def negative(self, score: Tensor, bad: Tensor, group: Tensor) -> Tensor:
        """The score that the good responses of each row's prompt are held against, [N]; 0 where there is none."""
        count = group_sum(bad, group)
        if self.tau is None:
            return group_mean(score, group, bad)
        top = group_max(torch.where(bad > 0, score.detach(), -math.inf), group)
        top = torch.where(count > 0, top, 0.0)  # taken out of the sum, so that no exponential overflows
        shifted = torch.where(bad > 0, (score - top) / self.tau, -math.inf).exp()
        total = torch.where(count > 0, group_sum(shifted, group), 1.0)
        return torch.where(count > 0, top + self.tau * (total / count.clamp(min=1)).log(), 0.0)


@part
class TrustRegion(Regularizer):
    r"""A penalty on the mean deviation D of all tokens of the batch, as far as it is beyond a limit.

    .. math:: \frac c2\max(D - \delta, 0)^2,\qquad D = \frac{1}{\sum_i|y_i|}\sum_{i,t} f(\log\pi_\theta - \log\pi_{old})

    D is :class:`~policyopt.parts.Proximal` as a mean. Inside the limit there is no value and no gradient. Source: DisCO,
    arXiv:2505.12366.
    """

    coef: NonNegative = 1e3
    """c."""
    deviation: Deviation = "kl-old-new"
    """f, one of :func:`~policyopt.parts.regularizer.proximal.deviation`."""
    limit: NonNegative = 1e-4
    """delta, in nats for a KL."""

    unit: ClassVar[Unit] = "batch"

    def measured(self, batch: Batch) -> Tensor:
        """D, a number."""
        return Proximal(deviation=self.deviation, mean=True)(batch)

    def __call__(self, batch: Batch) -> Tensor:
        return self.coef / 2 * (self.measured(batch) - self.limit).clamp(min=0) ** 2

    def metrics(self, batch: Batch) -> Mapping[str, Tensor]:
        return Proximal(deviation=self.deviation).metrics(batch)


@method(
    parent=grpo,
    arxiv="2505.12366",
    code="Optimization-AI/DisCO",
    confidence="code",
    claim=Claim(
        "Prompts that weigh the same however hard they are, and a trust region in the place of the clip: more is learned, "
        "without a fall.",
        "mixed-difficulty",
        (Effect("accuracy", "higher", 0.02), Effect("drop", "lower", -0.02)),
        both={"recipe.update.minibatches": 4},
        theirs={"kl-coef": 0.0},
    ),
)
def disco(
    score: Literal["log-likelihood", "likelihood-ratio"] = "log-likelihood",
    tau: float | None = 10.0,
    beta: float = 1e3,
    delta: float = 1e-4,
    minibatches: int = 4,
    group_size: int = 8,
) -> Recipe:
    r"""Discriminative Constrained Optimization: push the scores of right answers above those of the hardest wrong ones,
    inside a trust region.

    .. math:: L = -\frac1Q\sum_q\frac{1}{|P_q|}\sum_{i\in P_q}\Big(s_i - \tau\log\frac{1}{|N_q|}\sum_{j\in N_q}e^{s_j/\tau}\Big)
              + \frac\beta2\max(D - \delta, 0)^2,\qquad D = \mathrm{mean}_{tok}\log\frac{\pi_{old}}{\pi_\theta}

    P_q and N_q are the right and the wrong answers to prompt q (above and below the mean reward of the group), s the mean
    log-probability of a response or the mean of its token ratios. ``tau=None`` is the plain mean over the wrong ones
    (DisCO-b). Unlike GRPO the weight of a prompt does not depend on its accuracy. Defaults from the authors' scripts;
    they have tau 1 for the likelihood ratio.
    """
    likelihood = RowScore(reduce="mean")
    ratio = RowScore(against="old", reduce="mean", ratio=True)
    return grpo(kl_coef=0.0, group_size=group_size).replace(
        advantage=Normalise(centre="group", scale="none"),
        surrogate=HardNegatives(score=likelihood if score == "log-likelihood" else ratio, tau=tau),
        regularizers=(TrustRegion(coef=beta, deviation="kl-old-new", limit=delta),),
        update=Update(minibatches=minibatches),
    )
