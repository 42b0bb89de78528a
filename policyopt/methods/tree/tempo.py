"""TEMPO."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import group_mean, group_std
from policyopt.methods.group.grpo import grpo
from policyopt.part import Advantage, Finite, NonNegative, Unit, part
from policyopt.parts import TokenMean
from policyopt.parts.advantage.tree import node_means
from policyopt.parts.regularizer.kl import Estimator
from policyopt.recipe import Recipe, Update
from policyopt.registry import method
from policyopt.rows import Batch, masked
from policyopt.sources.draw import Levels, Tree


def prefix_values(batch: Batch) -> Tensor:
    r""":math:`V(s) = \mathrm{mean}_{j:\, y_j\text{ begins with }s} R_j` of the first k = 0..T tokens of each row,
    [N, T + 1], over the rows of its group; 0 beyond the response. O(N T log N)."""
    way = beginnings(batch)
    return torch.where(way >= 0, node_means(batch.total_reward(), way), 0.0)


def beginnings(batch: Batch) -> Tensor:
    """[N, T + 1] the nodes of each row in the tree of tokens, whose nodes are what the responses of a group begin with; -1
    beyond the response."""
    there = batch.mask.bool() if batch.present is None else batch.present.bool()
    length = (there.flip(-1).cumsum(-1) > 0).sum(-1)
    tokens = torch.where(there, batch.tokens, -1)
    way = [batch.group.long()]
    for k in range(there.shape[1]):
        node = torch.unique(torch.stack([way[-1], tokens[:, k]], 1), dim=0, return_inverse=True)[1]
        way.append(torch.where(k < length, node, -1))
    return torch.stack(way, 1)


@part
class PrefixAdvantage(Advantage):
    r"""GRPO's advantage, and on tokens that leave a branching prefix the change of its worth.

    .. math:: A_{i,t} = \frac{R_i - \mathrm{mean} + c\,\delta_{i,t}}{\mathrm{std} + \epsilon},\qquad
              \delta_{i,t} = V(y_{i,\le t}) - V(y_{i,<t})

    V is :func:`prefix_values`. Source: TEMPO, arXiv:2509.18314.
    """

    td_coef: Finite = 1.0
    """c."""
    ddof: Literal[0, 1] = 1
    """Delta degrees of freedom of the standard deviation."""
    eps: NonNegative = 1e-6
    """Added to the standard deviation."""

    unit: ClassVar[Unit] = "batch"
    min_group: ClassVar[int] = 2

    def difference(self, batch: Batch) -> Tensor:
        """delta, [N, T]."""
        value = prefix_values(batch)
        return masked(value[:, 1:] - value[:, :-1], batch.mask)

    def __call__(self, batch: Batch) -> Tensor:
        reward, group = batch.total_reward(), batch.group
        gain = (reward - group_mean(reward, group))[:, None] + self.td_coef * self.difference(batch)
        return gain / (group_std(reward, group, self.ddof) + self.eps)[:, None] * batch.mask


@method(
    parent=grpo,
    arxiv="2509.18314",
    code="fatebreaker/tempo",
    confidence="code",
    claim=Claim(
        "The tree that a group's responses form anyway says which tokens mattered: as many steps lead further.",
        "chain_sum",
        (Effect("accuracy", "higher", 0.02),),
        both={"steps": 10},
        ours={"minibatches": 1},
        theirs={"kl-coef": 0.0},
    ),
)
def tempo(
    td_coef: float = 1.0,
    widths: tuple[int, ...] = (),
    segment: int = 16,
    low: float | None = 0.2,
    high: float | None = 0.28,
    kl_coef: float = 0.0,
    kl: Estimator = "k3",
    epochs: int = 1,
    minibatches: int = 8,
    group_size: int = 8,
) -> Recipe:
    r"""Tree-Estimated Mean Prefix Value for Policy Optimization: the responses of a group form a prefix tree, whose
    branches tell which tokens mattered.

    .. math:: A_{i,t} = \frac{(R_i - \mathrm{mean}) + c\,\delta_{i,t}}{\mathrm{std} + \epsilon},\qquad
              \delta_{i,t} = V(y_{i,\le t}) - V(y_{i,<t}),\qquad V(s) = \mathrm{mean}_{j:\,y_j\text{ begins with }s} R_j

    delta is 0 but on tokens that leave a beginning after which the group has several next tokens. Independent responses
    share beginnings by chance; with ``widths`` they are drawn as a tree with so many children at each depth, of
    ``segment`` tokens each, and ``group_size`` is the product of the widths. Every response keeps its tokens, so what
    several share counts once for each of them, with its own outcome. Token-mean, no KL. Source: arXiv:2509.18314;
    formula and defaults from the authors' code and scripts (groups of 7, 512 prompts in 8
    mini-batches), where c does not exist.
    """
    recipe = grpo(low, high, kl_coef, kl, group_size=group_size).replace(
        advantage=PrefixAdvantage(td_coef=td_coef),
        aggregate=TokenMean(),
        update=Update(epochs=epochs, minibatches=minibatches),
    )
    if not widths:
        return recipe
    return recipe.replace(source=Tree(size=math.prod(widths), branching=Levels(widths=widths, segment=segment)))
