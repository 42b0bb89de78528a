"""Ranks inside a group: parts that look at the order of the responses to a prompt, not at how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.batch import Batch, masked
from policyopt.parts.advantage import group_rank, group_sum
from policyopt.parts.base import Fraction, Shape, Unit, Weight, part


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

    def score(self, batch: Batch) -> Tensor:
        """What is ranked: log-probability of each row, [N], in nats (per token)."""
        total = masked(batch.old_logp, batch.mask).sum(-1)
        return total / batch.mask.sum(-1).clamp(min=1) if self.length_normalised else total

    def rank(self, batch: Batch) -> Tensor:
        """k [N], 0 for the least likely row of a group."""
        return group_rank(self.score(batch), batch.group)


@part
class RankWeight(Weight):
    r"""Train on some ranks of a group more than on others: G times the share of each row among its prompt's rows.

    Shares of the rows, best reward first, with G of them: ``best`` (BoN) (1, 0, ...); ``best-random`` (BR) (1/2, and
    1/(2(G-1)) for each other); ``best-worst`` (BW) (1/2, 0, ..., 0, 1/2). The mean weight of a group is 1. Drawing rows
    with these probabilities gives the same loss in expectation. Source: PF-PPO, arXiv:2409.06957. Our
    reading: of equal rewards the first row in the batch ranks higher.
    """

    ranks: Literal["best", "best-random", "best-worst"] = "best-random"
    """Which ranks count."""

    unit: ClassVar[Unit] = "group"

    def __call__(self, log_ratio: Tensor, batch: Batch) -> Tensor:
        size = group_sum(torch.ones_like(batch.reward), batch.group)
        return (size * self.share(batch))[:, None].expand_as(log_ratio)

    def share(self, batch: Batch) -> Tensor:
        """The share of each row, [N]; those of a group add up to 1."""
        size = group_sum(torch.ones_like(batch.reward), batch.group)
        rank = group_rank(-batch.reward, batch.group)
        best, last = (rank == 0).to(size), (rank == size - 1).to(size)
        if self.ranks == "best":
            return best
        if self.ranks == "best-worst":
            return (best + last) / 2
        return torch.where(size == 1, best, best / 2 + (1 - best) / (2 * (size - 1).clamp(min=1)))


def weighted_r2(reward: Tensor, actual: Tensor, weight: Tensor) -> Tensor:
    r"""How well a reward tells the true score on the rows that rank weights select: all [N], a number in [0, 1].

    .. math:: R^2 = 1 - \frac{\sum_i w_i (s_i - \hat s_i)^2}{\sum_i w_i (s_i - \bar s)^2}

    s is the true score, s-hat its weighted least-squares line on the reward. Measured on a labelled set it says which
    ranks a reward model can be trusted on, before any training. It is 0 where either does not vary. Source: PF-PPO,
    arXiv:2409.06957.
    """
    share = weight / weight.sum()
    x, y = reward - (share * reward).sum(), actual - (share * actual).sum()
    between = (share * x * y).sum() ** 2
    within = (share * x**2).sum() * (share * y**2).sum()
    return torch.where(within > 0, between / within.clamp(min=torch.finfo(within.dtype).tiny), 0.0)


def kendall_tau(scores: Sequence[float], gold: Sequence[float]) -> float:
    r"""Agreement of two orders, :math:`\frac{2}{n(n-1)}\sum_{j<k}\mathrm{sign}(s_j - s_k)\,\mathrm{sign}(g_j - g_k)`, in [-1, 1].

    Ties count 0. Source: URPO, arXiv:2507.17515. Raises ``ValueError`` for lists of unlike length or of one entry.
    """
    if len(scores) != len(gold) or len(gold) < 2:
        raise ValueError(f"{len(scores)} scores for {len(gold)} candidates: expected as many, and at least two")

    def sign(x: float) -> int:
        return (x > 0) - (x < 0)

    pairs = list(combinations(range(len(gold)), 2))
    return sum(sign(scores[j] - scores[k]) * sign(gold[j] - gold[k]) for j, k in pairs) / len(pairs)
