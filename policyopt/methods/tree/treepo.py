"""TreePO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from policyopt.claims import Claim, Effect
from policyopt.groups import whiten
from policyopt.methods.clip.dapo import dapo
from policyopt.part import Advantage, Count, NonNegative, Unit, part
from policyopt.parts import MixedOutcomes, PPOClip
from policyopt.parts.advantage.tree import lineage, node_means, node_values, sharing
from policyopt.recipe import Recipe
from policyopt.registry import method
from policyopt.rows import Batch
from policyopt.sources.draw import Branching, Fork, Growth, Tree


@part
class SubtreeAdvantage(Advantage):
    r"""The mean advantage of a response over the nested trees that it belongs to, whitened over the tokens of the batch.

    .. math:: \tilde A_i = \frac{\sum_d w_{i,d}\,(R_i - \mathrm{mean}_{j \in S_d(i)} R_j)}{\sum_d w_{i,d}},\qquad
              A_{i,t} = (\tilde A_i - \mu) / \sqrt{\sigma^2 + \epsilon}

    S_d(i) holds the leaves that share the first d nodes of row i, S_0 all of the prompt; d ends before the leaf. A tree
    that the row is alone in is left out, but for S_0. w is 1, or the size of S_d. Without a tree it is the reward minus
    the mean of the group, whitened. Source: TreePO, arXiv:2508.17445, and the authors' code
    (multimodal-art-projection/TreePO).
    """

    weight: Literal["average", "size"] = "average"
    """How the trees of a row count."""
    drop_flat: bool = False
    """Leave out trees below the root whose leaves have equal rewards too."""
    eps: NonNegative = 1e-8
    """Added to the variance."""

    unit: ClassVar[Unit] = "batch"

    def terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The advantages of each row in its trees, [N, D], and their weights, 0 where one is left out."""
        way, reward = lineage(batch)[:, :-1], batch.total_reward()
        size = sharing(way).to(reward)
        gain = reward[:, None] - node_values(batch)[:, :-1]
        alone = size == 1
        if self.drop_flat:
            alone = alone | (node_means(gain.abs(), way) == 0)
        alone[:, 0] = False
        weight = size if self.weight == "size" else torch.ones_like(size)
        return gain, torch.where(alone, 0.0, weight)

    def raw(self, batch: Batch) -> Tensor:
        """A-tilde, [N]."""
        gain, weight = self.terms(batch)
        return (gain * weight).sum(-1) / weight.sum(-1)

    def __call__(self, batch: Batch) -> Tensor:
        advantage = self.raw(batch)[:, None].expand_as(batch.mask)
        return whiten(advantage, weight=batch.mask, ddof=1, variance_eps=self.eps) * batch.mask


def repeats(tokens: Sequence[int], length: int, times: int) -> bool:
    """Whether the last ``length`` tokens have been written ``times`` times in all."""
    last, n = tuple(tokens[-length:]), len(tokens) - length + 1
    return n >= times and sum(tuple(tokens[i : i + length]) == last for i in range(n)) >= times


@part
class Segments(Branching):
    r"""Segments of equal length: paths fork while leaves are missing, and start again from older segments when none is
    left to fork.

    The root has a random number of children in [``first_low``, ``first_high``]; then every open path has ``fan_out`` of
    them until there are as many paths as leaves were asked for. Where all paths have ended before, random ones are cut
    and go on from there. A path that repeats itself ends. Source: TreePO, arXiv:2508.17445, and the authors' code
    (multimodal-art-projection/TreePO). Our reading: a path that repeats itself is a leaf, cut short; only an end token
    finishes a response.
    """

    depth: Count = 14
    """Most segments of a path."""
    segment: Count | None = None
    """Tokens of a segment; None shares the budget out over ``depth``."""
    fan_out: Count = 2
    """Children of an open path."""
    first_low: Count = 2
    """Fewest children of the root."""
    first_high: Count = 8
    """Most children of the root."""
    repeat_length: Count = 32
    """Tokens of a piece of text that counts as a repetition."""
    repeat_times: Annotated[int, Field(ge=2)] = 8
    """How often it has to be there for the path to end."""
    restart: Literal["random", "least-likely", "block"] = "random"
    """Where a path is cut: at the end of a random segment or at the root; before the least likely of its tokens; or
    before a block of tokens, drawn with the softmax of their mean log-probabilities."""
    block: Count | None = None
    """Tokens of such a block; None for a quarter of a segment."""

    def __post_init__(self) -> None:
        if self.first_low > self.first_high:
            raise ValueError(f"first_low is {self.first_low}, above first_high, which is {self.first_high}")

    def __call__(self, tree: Growth, size: int) -> list[Fork]:
        length = self.segment or math.ceil(tree.budget / self.depth)
        if tree.rounds == 0:
            return [Fork(0, 0, min(size, tree.random.randint(self.first_low, self.first_high)), length)]
        for i in tree.open():
            if repeats(tree.rows[i].tokens, self.repeat_length, self.repeat_times):
                tree.rows[i].stop_reason = "stop"
        active = [i for i in tree.open() if math.ceil(len(tree.rows[i].tokens) / length) < self.depth]
        spare = size - len(tree.rows)
        if not active:
            return [self._restart(tree, length) for _ in range(spare)]
        forks = []
        for i in active:
            more = min(self.fan_out - 1, spare)
            spare -= more
            forks.append(Fork(i, len(tree.rows[i].tokens), 1 + more, length))
        return forks

    def _restart(self, tree: Growth, length: int) -> Fork:
        row = tree.random.randrange(len(tree.rows))
        if self.restart == "random":
            return Fork(row, tree.random.choice([0, *(end for _, end in tree.way(row)[:-1])]), 1, length)
        logp = tree.rows[row].logp
        if self.restart == "least-likely":
            return Fork(row, logp.index(min(logp)), 1, length)
        size = self.block or max(1, length // 4)
        blocks = range(0, len(logp), size)
        weights = [math.exp(fmean(logp[begin : begin + size])) for begin in blocks]
        return Fork(row, tree.random.choices(blocks, weights)[0], 1, length)


@method(
    parent=dapo,
    arxiv="2508.17445",
    code="multimodal-art-projection/TreePO",
    confidence="code",
    claim=Claim(
        "Responses that grow in a tree share their beginnings: drawing them takes less, and as many answers are right.",
        "chain_sum",
        (Effect("tokens/computed", "lower", 200.0), Effect("accuracy", "higher", -0.02)),
        both={"steps": 10, "group-size": 16, "rounds": 1},
    ),
)
def treepo(
    weight: Literal["average", "size"] = "average",
    drop_flat: bool = False,
    depth: int = 14,
    segment: int | None = None,
    fan_out: int = 2,
    restart: Literal["random", "least-likely", "block"] = "random",
    low: float | None = 0.2,
    high: float | None = 0.28,
    dual: float | None = 10.0,
    overlong_share: float = 0.07,
    rounds: int = 10,
    minibatches: int = 1,
    group_size: int = 16,
) -> Recipe:
    r"""Responses grow in a tree, segment by segment, and each has its mean advantage over the nested trees that it is
    part of.

    .. math:: \tilde A_i = \frac1{n_i}\sum_d \big(R_i - \mathrm{mean}_{j \in S_d(i)} R_j\big),\qquad
              A_{i,t} = (\tilde A_i - \mu)/\sqrt{\sigma^2 + 10^{-8}}

    S_d(i) are the leaves that share the first d segments of leaf i; trees that it is alone in are left out below the
    root. mu and sigma run over the response tokens of the batch. ``size`` weights the trees by their leaves. Segments
    have ``segment`` tokens, or the budget over ``depth``, as 7168 over 14 in the paper; ``restart`` says where a path that
    has ended is cut to fill up the leaves. DAPO's loss with a dual clip, no
    KL. Every leaf is a row with its whole path: a shared token counts once for each leaf behind it, with that leaf's
    advantage. Source: arXiv:2508.17445; defaults from the authors' code (the soft margin is 512 of 7168 tokens). Our
    reading: DAPO's reward of 1 or -1.
    """
    return dapo(overlong_share=overlong_share, minibatches=minibatches).replace(
        source=Tree(
            size=group_size,
            rounds=rounds,
            branching=Segments(depth=depth, segment=segment, fan_out=fan_out, restart=restart),
        ),
        filter=(MixedOutcomes(),),
        advantage=SubtreeAdvantage(weight=weight, drop_flat=drop_flat),
        surrogate=PPOClip(low=low, high=high, dual=dual),
    )
