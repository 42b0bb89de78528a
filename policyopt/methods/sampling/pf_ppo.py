"""PF-PPO."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim
from policyopt.groups import group_rank, group_sum
from policyopt.methods.critic.ppo import ppo
from policyopt.part import Unit, Weight, part
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch


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


@method(
    parent=ppo,
    arxiv="2409.06957",
    code="swtheing/PF-PPO-RLHF",
    confidence="code",
    claim=Claim(
        "Training on the best and the worst of several responses avoids rewards that cannot be trusted.",
        beyond="Its reward models are wrong mostly about the middle of their range; judges here say right or wrong, so "
        "that there is none.",
    ),
)
def pf_ppo(
    ranks: Literal["best", "best-random", "best-worst"] = "best-random",
    low: float | None = 0.2,
    high: float | None = 0.2,
    kl_coef: float = 0.05,
    epochs: int = 4,
    minibatches: int = 1,
    group_size: int = 4,
) -> Recipe:
    r"""PPO on the ranks of a prompt's responses that the reward model can be trusted on: the best, the worst, less of
    the middle.

    .. math:: L = \frac{1}{\sum_i|y_i|}\sum_{i,t} G\,w_{k(i)} \max(-r_{i,t}A_{i,t}, -\mathrm{clip}(r_{i,t})A_{i,t}) + c_v L_V

    w are the weights of the ranks k among the G responses to a prompt, which add up to 1: ``best`` (BoN),
    ``best-random`` (BR), ``best-worst`` (BW). Advantages come before, from all rows. Source: arXiv:2409.06957 and the
    authors' code. Our reading: weights on the loss, in the place of drawing rows with these probabilities, which is
    the same in expectation; the critic learns from all rows.
    """
    return ppo(low, high, kl_coef=kl_coef, epochs=epochs, minibatches=minibatches, group_size=group_size).replace(
        weight=(RankWeight(ranks=ranks),)
    )
