"""Contrasts: losses that compare the responses to one prompt with each other, by a number for each response."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from policyopt.batch import Batch, masked, masked_mean
from policyopt.parts.advantage import group_max, group_sum
from policyopt.parts.base import NonNegative, Part, Positive, Surrogate, Unit, part

BOUND = 20.0
"""Log-ratios of whole responses are held to plus and minus this before they become ratios."""


@part
class RowScore(Part):
    r"""What the policy thinks of a response, one number [N] from the log-probabilities of its tokens.

    .. math:: s_i = \sum_t x_{i,t}\quad\text{or}\quad \frac{1}{|y_i|}\sum_t x_{i,t},\qquad
              x = \log\pi_\theta,\quad \log\frac{\pi_\theta}{\pi_{old}},\quad \log\frac{\pi_\theta}{\pi_{ref}},\quad
              \text{or the exponential of these}
    """

    against: Literal["nothing", "old", "reference"] = "nothing"
    """What the log-probabilities are measured against."""
    reduce: Literal["sum", "mean"] = "sum"
    """How the numbers of the tokens become one."""
    ratio: bool = False
    """Take the exponential of each token first."""

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The reference where it is the measure."""
        return frozenset({"ref_logp"} if self.against == "reference" else ())

    def __call__(self, batch: Batch) -> Tensor:
        base = {"nothing": 0.0, "old": batch.old_logp, "reference": batch.ref_logp}[self.against]
        x = masked(batch.logp - base, batch.mask)
        x = masked(x.exp(), batch.mask) if self.ratio else x
        return x.sum(-1) if self.reduce == "sum" else masked_mean(x, batch.mask, dim=-1)


def row_credit(batch: Batch) -> Tensor:
    """The advantage of each response [N], exactly that of its last token; 0 for a response without tokens."""
    return masked(batch.advantage, batch.terminal()).sum(-1)


class Contrast(Surrogate):
    """A loss of whole responses: each row's part of it, on all of its tokens.

    Meant for an aggregation whose shares add up to 1/N in each row (``seq-mean-token-mean``).
    """

    score: RowScore

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
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
    def needs(self) -> frozenset[str]:  # type: ignore[override]
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
class ClippedPair(Link):
    r"""PPO's minimum for a pair whose advantage is the difference, :math:`d = A_1 - A_2`; the scores are log-ratios.

    .. math:: \text{separate:}\quad -\tfrac12\big[sg(\rho_2)\min(d\rho_1, d\,\mathrm{clip}(\rho_1)) + sg(\rho_1)\min(-d\rho_2, -d\,\mathrm{clip}(\rho_2))\big]

    .. math:: \text{joint:}\quad -\tfrac12\,sg(\rho_1\rho_2)\min(d x, d\,\mathrm{clip}(x, -\epsilon, \epsilon)),\qquad x = \log\rho_1 - \log\rho_2

    Both have the gradient :math:`-\frac d2\nabla\log\frac{\pi(y_1)}{\pi(y_2)}` on-policy. Separately, one side may be clipped while the
    other still learns. Source: P3O, arXiv:2310.00212. Our reading: where the gradient stops, and the factor 1/2.
    """

    clip: NonNegative | None = 0.2
    """epsilon; None clips nothing."""
    joint: bool = False
    """Clip the difference of the log-ratios, rather than each ratio."""

    def __call__(self, score: Tensor, batch: Batch, better: Tensor, worse: Tensor) -> Tensor:
        credit, bound = row_credit(batch), math.inf if self.clip is None else self.clip
        gain = credit[better] - credit[worse]  # never negative: the minimum is reached from above
        log1, log2 = (score[i].clamp(-BOUND, BOUND) for i in (better, worse))
        one, two = log1.exp(), log2.exp()
        if self.joint:
            return -0.5 * (one * two).detach() * gain * (log1 - log2).clamp(max=bound)
        up, down = one.clamp(max=1 + bound), two.clamp(min=1 - bound)
        return -0.5 * gain * (two.detach() * up - one.detach() * down)


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
    def needs(self) -> frozenset[str]:  # type: ignore[override]
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


# Positives against negatives -----------------------------------------------------------------------------------------


@part
class HardNegatives(Contrast):
    r"""Each good response against the bad ones of its prompt, those with the highest scores first.

    .. math:: L = -\frac1Q\sum_q \frac{1}{|P_q|}\sum_{i\in P_q}\Big(s_i - \tau\log\frac{1}{|N_q|}\sum_{j\in N_q} e^{s_j/\tau}\Big)

    P_q and N_q are the responses of prompt q with an advantage above and below 0; a prompt without either adds 0, but
    counts in Q, the number of prompts. The weight of a prompt does not depend on its accuracy. Source: DisCO,
    arXiv:2505.12366.
    """

    score: RowScore = RowScore(reduce="mean")
    """The number that stands for a response."""
    tau: Positive | None = 10.0
    """tau; None takes the plain mean of the negatives (tau without bound)."""

    unit: ClassVar[Unit] = "batch"

    def rows(self, batch: Batch) -> Tensor:
        score, credit, group = self.score(batch), row_credit(batch), batch.group
        good, bad = (credit > 0).to(score), (credit < 0).to(score)
        scale = group_sum(good, group).clamp(min=1) * len(group.unique()) / len(group)
        counts = (good > 0) & (group_sum(bad, group) > 0)
        return torch.where(counts, (self.negative(score, bad, group) - score) / scale, 0.0)

    def negative(self, score: Tensor, bad: Tensor, group: Tensor) -> Tensor:
        """The score that the good responses of each row's prompt are held against, [N]; 0 where there is none."""
        count = group_sum(bad, group)
        if self.tau is None:
            return group_sum(bad * score, group) / count.clamp(min=1)
        top = group_max(torch.where(bad > 0, score.detach(), -math.inf), group)
        top = torch.where(count > 0, top, 0.0)  # taken out of the sum, so that no exponential overflows
        shifted = torch.where(bad > 0, (score - top) / self.tau, -math.inf).exp()
        total = torch.where(count > 0, group_sum(shifted, group), 1.0)
        return torch.where(count > 0, top + self.tau * (total / count.clamp(min=1)).log(), 0.0)


# Regression ----------------------------------------------------------------------------------------------------------


@part
class AdvantageRegression(Contrast):
    r"""The advantage, predicted by how the policy has moved, and the squared error of the prediction.

    .. math:: (A_i - \hat A_i)^2,\qquad \hat A_i = \frac{s_i - \mathrm{mean}(s)}{\max(\mathrm{std}(s), \sigma) + \epsilon}

    Mean and std run over the responses to one prompt, with their gradients: only the direction of the scores is fitted,
    not their size. Below ``floor`` the scale is that constant. Source: Reg-GRPO, arXiv:2506.07464. Our reading: ddof 1,
    and the floor, without which the first step on a batch divides by eps.
    """

    score: RowScore = RowScore(against="old")
    """The number that stands for a response."""
    eps: NonNegative = 1e-6
    """epsilon."""
    floor: Positive = 1e-2
    """sigma, in nats per response."""

    unit: ClassVar[Unit] = "group"
    min_group: ClassVar[int] = 2

    def predicted(self, batch: Batch) -> Tensor:
        """The predicted advantage of each row, [N]."""
        score, size = self.score(batch), group_sum(torch.ones_like(batch.mask[:, 0]), batch.group)
        centred = score - group_sum(score, batch.group) / size
        variance = group_sum(centred**2, batch.group) / (size - 1).clamp(min=1)
        return centred / (variance.clamp(min=self.floor**2).sqrt() + self.eps)

    def rows(self, batch: Batch) -> Tensor:
        return (row_credit(batch) - self.predicted(batch)) ** 2
