"""Contrasts between the responses to one prompt."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.part import Part, Positive, Surrogate, Unit, part
from policyopt.parts.ratio.sequence import RowScore
from policyopt.rows import Batch, masked


def row_credit(batch: Batch) -> Tensor:
    """The advantage of each response [N], exactly that of its last token; 0 for a response without tokens."""
    return masked(batch.advantage, batch.terminal()).sum(-1)


class Contrast(Surrogate):
    """A loss of whole responses: each row's part of it, on all of its tokens.

    Meant for an aggregation whose shares add up to 1/N in each row (``seq-mean-token-mean``).
    """

    score: RowScore

    @property
    def needs(self) -> frozenset[str]:
        """What the score reads."""
        return self.score.needs

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        return self.rows(batch)[:, None].expand_as(batch.mask)

    def rows(self, batch: Batch) -> Tensor:
        """N times each row's part of the loss, [N]."""
        raise NotImplementedError


# All pairs -----------------------------------------------------------------------------------------------------------


class Link(Part):
    """The loss of a pair of responses [P], from the scores of all rows [N] and the row numbers of the better and the
    worse response of each pair, [P]."""

    ties: ClassVar[bool] = True
    """Whether two responses with the same advantage are a pair."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        raise NotImplementedError


@part
class Logistic(Link):
    r"""Preference alone, not by how much: :math:`-\log\sigma(\beta\kappa(s_i - s_j))` where i is better than j.

    kappa counts where the better response is correct. Source: TRPA, arXiv:2504.04524; with kappa = 1 and log-ratios to
    the reference, DPO, arXiv:2305.18290.
    """

    beta: Positive = 0.1
    """Scale of the margin."""
    anisotropy: Positive = 2.5
    """kappa."""

    ties: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        """The verdict, where it makes a difference."""
        return frozenset(() if self.anisotropy == 1 else {"correct"})

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        margin = self.beta * (score[better] - score[worse])
        if self.anisotropy == 1:
            return -logsigmoid(margin)
        return -logsigmoid(torch.where(batch.correct[better] > 0.5, self.anisotropy * margin, margin))


@part
class Regress(Link):
    r"""Differences of advantages, fitted by differences of scores.

    .. math:: -\big(\Delta A - \tfrac\beta2\Delta s\big)\Delta s \;=\; \frac{1}{2\beta}(\Delta A - \beta\Delta s)^2 - \frac{\Delta A^2}{2\beta}

    Both forms have the gradient :math:`-(\Delta A - \beta\Delta s)\nabla\Delta s`; the first is the value unless ``square`` (the
    squared term alone). It vanishes where the policy is the reference times :math:`e^{R/\beta}`, whoever sampled. Source:
    CoPG, arXiv:2406.19185.
    """

    beta: Positive = 0.1
    """Weight of the regularisation, in units of reward per nat."""
    square: bool = False
    """Which form is the value."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        credit = row_credit(batch)
        gain, margin = credit[better] - credit[worse], score[better] - score[worse]
        if self.square:
            return (gain - self.beta * margin) ** 2 / (2 * self.beta)
        return -(gain - self.beta / 2 * margin) * margin


@part
class Pairs(Contrast):
    r"""The mean over all pairs of responses to the same prompt of a link between their scores and their advantages.

    .. math:: L = \frac{1}{|P|}\sum_{(i,j)\in P} \ell(s_i, s_j, A_i, A_j)

    P holds every unordered pair of the batch, the better response first. Both rows carry half of a pair's loss.
    """

    score: RowScore = RowScore()
    """The number that stands for a response."""
    link: Link = Regress()
    """The loss of a pair."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    @property
    def needs(self) -> frozenset[str]:
        """What the score and the link read."""
        return self.score.needs | self.link.needs

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Row numbers of the better and of the worse response of each pair, [P]."""
        credit, row = row_credit(batch), torch.arange(len(batch.mask), device=batch.mask.device)
        first = credit[:, None] > credit
        if self.link.ties:
            first |= (credit[:, None] == credit) & (row[:, None] < row)
        better, worse = (first & (batch.group[:, None] == batch.group)).nonzero(as_tuple=True)
        return better, worse

    def rows(self, batch: Batch) -> Tensor:
        better, worse = self.pairs(batch)
        loss = self.link(self.score(batch), batch, better, worse) / 2
        shared = torch.zeros_like(batch.mask[:, 0]).index_add(0, better, loss).index_add(0, worse, loss)
        return shared * (len(batch.mask) / max(1, len(better)))
